"""A backend in the test's own process, for tests of what stands before one."""

from typing import Any

from dynamic_tinybert.serving.carrying_out import carry_out, model_facts
from dynamic_tinybert.serving.jobs import Job, ModelFacts
from dynamic_tinybert.serving.service import AsyncService


class DirectBackend:
    """The `Backend` whose jobs an asynchronous service carries out in threads of this process."""

    def __init__(self, service: AsyncService, name: str = "tiny") -> None:
        self.service = service
        self.facts: ModelFacts | None = model_facts(service.model, name)
        self.draining = False
        self.restarts: dict[str, int] = {}

    @property
    def ready(self) -> bool:
        return not self.draining

    @property
    def queued(self) -> int:
        return self.service.queued

    @property
    def running(self) -> int:
        return self.service.running

    async def run(self, job: Job, *, deadline: float | None = None) -> Any:  # noqa: ANN401 - by the job's kind
        return await carry_out(self.service, job, deadline=deadline)

    async def aclose(self) -> None:
        self.draining = True
        await self.service.aclose()
