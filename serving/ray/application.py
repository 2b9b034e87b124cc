"""The Ray Serve application: a front that speaks HTTP, and replicas that run the model."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette

from dynamic_tinybert.runtime.tasks.question_answering.answers import Answer
from dynamic_tinybert.runtime.tasks.question_answering.plan import Answered
from dynamic_tinybert.serving.http.app import make_app
from dynamic_tinybert.serving.jobs import AnswerJob

from .backend import HandleBackend
from .replica import ModelReplica
from .settings import RaySettings

_SPARE = 16  # requests of a front besides those of the model: health, metrics, and those that are refused
_HEAD = {"node:__internal_head__": 0.001}  # a resource that only the head has


@serve.ingress()
class Front:
    """Takes requests over HTTP, and those of Python callers, and has replicas answer them."""

    def __init__(self, model: DeploymentHandle[Any], settings: RaySettings) -> None:
        """Have a deployment of `ModelReplica` answer."""
        self._model = model
        self._settings = settings

    async def __serve_build_asgi_app__(self) -> Starlette:
        """Wait until a replica has loaded the model; Serve calls it before the first request."""
        self._backend = HandleBackend(self._model, await self._model.facts.remote())
        return make_app(self._backend, self._settings.server())

    async def answer(
        self,
        question: str,
        context: str,
        *,
        timeout: float | None = None,
        **options: Any,  # noqa: ANN401 - those of `QuestionAnswerer.answer_batch`
    ) -> Answer | list[Answer]:
        """Answer a question, for callers in Python: ``await handle.answer.remote(question, context, budget_ms=20)``.

        Args:
            question: The question.
            context: The text to answer from.
            timeout: Seconds in which the answer is wanted; None for as many as the application gives.
            options: Those of `QuestionAnswerer.answer_batch`.

        Returns:
            The best answer, or with `top_k` above 1 a list, best first.

        Raises:
            DynamicTinyBertError: As `Backend.run`. Ray raises it as a RayTaskError that is also an instance of it.
        """
        seconds = self._settings.request_timeout_s if timeout is None else timeout
        job = AnswerJob((question,), (context,), options)
        answered: Answered = await self._backend.run(job, deadline=monotonic() + seconds)
        (answers,) = answered.answers
        return answers[0] if options.get("top_k", 1) == 1 else answers


def build_app(args: Mapping[str, Any] | RaySettings) -> Application:
    """Build the application, for `serve.run` and ``serve run dynamic_tinybert.serving.ray:build_app NAME=VALUE …``.

    Args:
        args: The settings, by name; those that are left out have the defaults of `RaySettings`.

    Raises:
        InvalidInputError: A setting is unknown or not usable.
    """
    settings = args if isinstance(args, RaySettings) else RaySettings.checked(args)
    target = settings.target_ongoing_requests or settings.max_ongoing_requests / 2
    model = serve.deployment(
        name="model",
        ray_actor_options={"num_cpus": settings.num_cpus},
        autoscaling_config={
            "min_replicas": settings.min_replicas,
            "max_replicas": settings.max_replicas,
            "target_ongoing_requests": target,
        },
        max_ongoing_requests=settings.max_ongoing_requests,
        max_queued_requests=settings.max_queued_requests,
        health_check_period_s=settings.health_check_period_s,
        health_check_timeout_s=settings.health_check_timeout_s,
    )(ModelReplica)
    most = settings.max_replicas * settings.max_ongoing_requests + settings.max_queued_requests + _SPARE
    front = serve.deployment(
        name="front",
        num_replicas=settings.front_replicas,
        ray_actor_options={"num_cpus": 0, "resources": _HEAD if settings.front_on_head else {}},
        max_ongoing_requests=most,
        max_queued_requests=most,
    )(Front)
    app: Application = front.bind(model.bind(settings), settings)
    return app
