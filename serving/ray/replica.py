"""The model in a replica of Ray Serve."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import Any

from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.serving.answerer import AsyncQuestionAnswerer
from dynamic_tinybert.serving.carrying_out import carry_out, compile_graphs, model_facts
from dynamic_tinybert.serving.jobs import AnswerJob, ClassifyJob, Job, ModelFacts, RankJob
from dynamic_tinybert.serving.tasks import service_for

from .settings import RaySettings
from .threads import thread_options

_CHOOSES = ("length_config", "budget_ms", "max_f1_loss")


class ModelReplica:
    """Carries out jobs, in the order of its own queue, with the threads that its CPUs allow."""

    def __init__(self, settings: RaySettings) -> None:
        """Load the bundle, measure it for budgets (or take what was measured before), and compile its graphs."""
        model = LengthAdaptiveModel.from_pretrained(settings.bundle, **thread_options(settings.num_threads))
        model.resolve(settings.length_config)
        # one place more than Serve lets in, so that a check of its health always has one
        self._service = service_for(model, max_queued=settings.max_ongoing_requests + 1)
        if isinstance(self._service, AsyncQuestionAnswerer):
            self._service.answerer.latency_table()
        compile_graphs(model)
        self._length_config = settings.length_config
        self._facts = model_facts(model, settings.model_name)

    async def facts(self) -> ModelFacts:
        """What the model is."""
        return self._facts

    async def run(self, job: Job, timeout_s: float | None = None) -> Any:  # noqa: ANN401 - by the kind of the job
        """Carry out a job; results and errors are those of `carry_out`.

        Args:
            job: What to do.
            timeout_s: Seconds from now in which the result is wanted. Nodes do not share a monotonic clock.
        """
        if (
            self._length_config is not None
            and isinstance(job, AnswerJob | ClassifyJob | RankJob)
            and not job.options.keys() & set(_CHOOSES)
        ):
            job = replace(job, options={**job.options, "length_config": self._length_config})
        return await carry_out(self._service, job, deadline=None if timeout_s is None else monotonic() + timeout_s)

    async def check_health(self) -> None:
        """Run the model in a turn, as any request would; Serve replaces a replica that fails or takes too long."""
        await self._service.in_turn(lambda: self._service.model([[0]]))
