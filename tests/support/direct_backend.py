"""A backend in the test's own process, for tests of what stands before one."""

from typing import Any

from dynamic_tinybert import AsyncQuestionAnswerer
from dynamic_tinybert.serving.carrying_out import carry_out, model_facts
from dynamic_tinybert.serving.jobs import Job, ModelFacts


class DirectBackend:
    """The `Backend` whose jobs an asynchronous answerer carries out in threads of this process."""

    def __init__(self, answerer: AsyncQuestionAnswerer, name: str = "tiny") -> None:
        self.answerer = answerer
        self.facts: ModelFacts | None = model_facts(answerer.answerer.model, name)
        self.draining = False
        self.restarts: dict[str, int] = {}

    @property
    def ready(self) -> bool:
        return not self.draining

    @property
    def queued(self) -> int:
        return self.answerer.queued

    @property
    def running(self) -> int:
        return self.answerer.running

    async def run(self, job: Job, *, deadline: float | None = None) -> Any:  # noqa: ANN401 - by the job's kind
        return await carry_out(self.answerer, job, deadline=deadline)

    async def aclose(self) -> None:
        self.draining = True
        await self.answerer.aclose()
