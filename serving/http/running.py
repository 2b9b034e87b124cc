"""Run jobs for clients, who may hang up before there is a result."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from itertools import chain
from time import monotonic
from typing import Any, TypeVar, overload

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from dynamic_tinybert.runtime.common.checks import require_number
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.plan import Answered
from dynamic_tinybert.serving import jobs
from dynamic_tinybert.serving.jobs import (
    AnswerJob,
    Backend,
    Classified,
    ClassifyJob,
    ExplainJob,
    Job,
    Logits,
    LogitsJob,
    Ranked,
    RankJob,
)
from dynamic_tinybert.serving.settings import ServerSettings
from dynamic_tinybert.serving.usage import Computed

from .metrics import Metrics

Result = TypeVar("Result")


class JobRunner:
    """Runs the jobs of all routes, by the same rules."""

    def __init__(self, backend: Backend, settings: ServerSettings, metrics: Metrics) -> None:
        """Run jobs on a backend."""
        self.backend = backend
        self.settings = settings
        self.metrics = metrics

    @overload
    async def run(self, job: AnswerJob, receive: Receive, timeout_ms: float | None = None) -> Answered: ...

    @overload
    async def run(self, job: ClassifyJob, receive: Receive, timeout_ms: float | None = None) -> Classified: ...

    @overload
    async def run(self, job: RankJob, receive: Receive, timeout_ms: float | None = None) -> Ranked: ...

    @overload
    async def run(self, job: LogitsJob, receive: Receive, timeout_ms: float | None = None) -> Logits: ...

    @overload
    async def run(self, job: ExplainJob, receive: Receive, timeout_ms: float | None = None) -> dict[str, Any]: ...

    async def run(self, job: Job, receive: Receive, timeout_ms: float | None = None) -> jobs.Result:
        """Run a job, and give it up if the client hangs up.

        Args:
            job: What to do.
            receive: The request's ASGI function, of which the body has been read.
            timeout_ms: Milliseconds from now in which the client wants the result; None for as many as the server
                gives.

        Raises:
            InvalidInputError: `timeout_ms` is not a number above 0, or is more than the server gives.
            HTTPException: 413 if the job has too many texts or characters.
            ClientDisconnect: The client hung up.
            DynamicTinyBertError: As `Backend.run`.
        """
        seconds = self._seconds(timeout_ms)
        self._check_size(job)
        work: Coroutine[Any, Any, Any] = self.backend.run(job, deadline=monotonic() + seconds)
        result: jobs.Result = await unless_disconnected(work, receive)
        if isinstance(result, Answered | Computed | Logits):
            self.metrics.count_result(result)
        return result

    def _seconds(self, timeout_ms: float | None) -> float:
        if timeout_ms is None:
            return self.settings.request_timeout_s
        seconds = require_number("timeout_ms", timeout_ms) / 1000
        if not 0 < seconds <= self.settings.request_timeout_s:
            most = self.settings.request_timeout_s * 1000
            raise InvalidInputError(f"timeout_ms must be more than 0 and at most {most:g}, not {timeout_ms!r}")
        return seconds

    def _check_size(self, job: Job) -> None:
        what, count, texts = _items(job)
        if count > self.settings.max_items:
            raise HTTPException(413, f"{count} {what} in one request; this server takes {self.settings.max_items}")
        characters = sum(map(len, texts))
        if characters > self.settings.max_characters:
            raise HTTPException(
                413,
                f"the texts have {characters} characters; this server takes {self.settings.max_characters}",
            )


def _items(job: Job) -> tuple[str, int, Iterable[str]]:
    """What a job consists of, their number, and all its texts."""
    match job:
        case AnswerJob():
            return "questions", len(job.questions), chain(job.questions, job.contexts)
        case ClassifyJob():
            return "texts", len(job.texts), chain.from_iterable(job.texts)
        case RankJob():
            return "documents", len(job.documents), chain((job.query,), job.documents)
        case ExplainJob():
            return "questions", 1, (job.question, job.context)
        case LogitsJob():  # its size is checked before it is read
            return "rows", 0, ()


async def unless_disconnected(work: Coroutine[Any, Any, Result], receive: Receive) -> Result:
    """Await `work`; if the client hangs up before it is done, cancel it and raise ClientDisconnect."""
    waiting = asyncio.current_task()
    assert waiting is not None
    has_gone = False

    async def watch() -> None:
        nonlocal has_gone
        while (await receive())["type"] != "http.disconnect":
            pass
        has_gone = True
        waiting.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if has_gone and not waiting.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        watcher.cancel()
