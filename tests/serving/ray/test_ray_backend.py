"""What the front makes of replicas that are lost, full or slow; a local handle stands for those of a cluster."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

pytest.importorskip("ray.serve", reason="Ray is not installed")

from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError

from dynamic_tinybert import AsyncQuestionAnswerer, QuestionAnswerer
from dynamic_tinybert.runtime.common.errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidInputError,
    OverloadedError,
    WorkerLostError,
)
from dynamic_tinybert.serving.carrying_out import carry_out, model_facts
from dynamic_tinybert.serving.jobs import AnswerJob
from dynamic_tinybert.serving.ray.backend import HandleBackend

JOB = AnswerJob(("who?",), ("the fox was in the box",))


class Response:
    """A response of a replica, or the error that Ray raises in its place."""

    def __init__(self, what: Any) -> None:  # noqa: ANN401
        self._what = what
        self.cancelled = False

    def __await__(self) -> Any:  # noqa: ANN401
        if isinstance(self._what, Exception):
            raise self._what
        return (yield from self._what.__await__())

    def cancel(self) -> None:
        self.cancelled = True


class Replicas:
    """A handle whose calls meet these faults, one after another, and then an answerer."""

    def __init__(self, answerer: QuestionAnswerer, *faults: Any) -> None:  # noqa: ANN401
        self._service = AsyncQuestionAnswerer(answerer)
        self._faults = list(faults)
        self.responses: list[Response] = []

    @property
    def run(self) -> "Replicas":
        return self

    def remote(self, job: AnswerJob, timeout_s: float | None) -> Response:
        what = self._faults.pop(0) if self._faults else carry_out(self._service, job)
        self.responses.append(Response(what))
        return self.responses[-1]

    async def aclose(self) -> None:
        await self._service.aclose()


def asked(
    answerer: QuestionAnswerer,
    *faults: Any,  # noqa: ANN401
    seconds: float | None = None,
    act: Callable[[HandleBackend], Any] = id,
) -> tuple[Any, Replicas]:
    """The result of a job or its error, and the replicas that it was sent to."""
    replicas = Replicas(answerer, *faults)

    async def ask() -> Any:  # noqa: ANN401
        backend = HandleBackend(replicas, model_facts(answerer.model, "tiny"))
        try:
            outcome = act(backend)
            if asyncio.iscoroutine(outcome):
                await outcome
            return await backend.run(JOB, deadline=None if seconds is None else monotonic() + seconds)
        except Exception as error:
            return error
        finally:
            assert (backend.running, backend.queued) == (0, 0)
            await replicas.aclose()

    return asyncio.run(ask()), replicas


@pytest.mark.parametrize("fault", [ActorDiedError(), ActorUnavailableError("gone", None)])
def test_a_request_of_a_lost_replica_is_sent_once_more(served: QuestionAnswerer, fault: Exception) -> None:
    result, replicas = asked(served, fault)
    assert result.answers == served.answer_batch(list(JOB.questions), list(JOB.contexts))
    assert len(replicas.responses) == 2
    result, replicas = asked(served, fault, fault)
    assert isinstance(result, WorkerLostError)
    assert len(replicas.responses) == 2


def test_errors_of_the_model_come_without_the_traceback_of_ray(served: QuestionAnswerer) -> None:
    error = InvalidInputError("question is empty")
    result, replicas = asked(served, RayTaskError("run", "Traceback …", error).as_instanceof_cause())
    assert type(result) is InvalidInputError
    assert str(result) == "question is empty"
    assert len(replicas.responses) == 1


def test_a_full_queue_is_an_overload(served: QuestionAnswerer) -> None:
    result, replicas = asked(served, BackPressureError(9, 9))
    assert type(result) is OverloadedError
    assert len(replicas.responses) == 1


def test_a_request_is_given_up_at_its_deadline(served: QuestionAnswerer) -> None:
    result, replicas = asked(served, asyncio.sleep(60), seconds=0.1)
    assert type(result) is DeadlineExceededError
    assert [response.cancelled for response in replicas.responses] == [True]


def test_a_closed_backend_takes_nothing(served: QuestionAnswerer) -> None:
    result, replicas = asked(served, act=lambda backend: backend.aclose())
    assert type(result) is ClosedError
    assert replicas.responses == []
