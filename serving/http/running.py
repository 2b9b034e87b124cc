"""Run jobs for clients, who may hang up before there is a result."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import Any, TypeVar, overload

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from dynamic_tinybert.runtime.common.checks import require_number
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.plan import Answered
from dynamic_tinybert.serving.jobs import AnswerJob, Backend, ExplainJob, Job, Logits, LogitsJob
from dynamic_tinybert.serving.settings import ServerSettings

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
    async def run(self, job: LogitsJob, receive: Receive, timeout_ms: float | None = None) -> Logits: ...

    @overload
    async def run(self, job: ExplainJob, receive: Receive, timeout_ms: float | None = None) -> dict[str, Any]: ...

    async def run(
        self, job: Job, receive: Receive, timeout_ms: float | None = None
    ) -> Answered | Logits | dict[str, Any]:
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
        if isinstance(job, AnswerJob):
            self._check_size(job.questions, job.contexts)
        elif isinstance(job, ExplainJob):
            self._check_size((job.question,), (job.context,))
        work: Coroutine[Any, Any, Any] = self.backend.run(job, deadline=monotonic() + seconds)
        result: Answered | Logits | dict[str, Any] = await unless_disconnected(work, receive)
        if isinstance(result, Answered | Logits):
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

    def _check_size(self, questions: tuple[str, ...], contexts: tuple[str, ...]) -> None:
        if len(questions) > self.settings.max_items:
            raise HTTPException(
                413, f"{len(questions)} questions in one request; this server takes {self.settings.max_items}"
            )
        characters = sum(map(len, questions)) + sum(map(len, contexts))
        if characters > self.settings.max_characters:
            raise HTTPException(
                413,
                f"the texts have {characters} characters; this server takes {self.settings.max_characters}",
            )


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
