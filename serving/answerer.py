"""Answer questions asynchronously, in the event loop of a service."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import DeadlineExceededError, InvalidInputError, OverloadedError
from dynamic_tinybert.runtime.tasks.question_answering.answerer import QuestionAnswerer
from dynamic_tinybert.runtime.tasks.question_answering.answers import Answer, in_pipeline_shape
from dynamic_tinybert.runtime.tasks.question_answering.call_options import CallOptions, Pair
from dynamic_tinybert.runtime.tasks.question_answering.pairs import given_once
from dynamic_tinybert.runtime.tasks.question_answering.plan import Answered

from .call import Call
from .questions import Questions, Runner
from .requests import Work, deadline_exceeded
from .scheduler import Scheduler

Result = TypeVar("Result")

_IGNORED = ("max_question_len", "padding", "num_workers", "framework")  # as `QuestionAnswerer.__call__` does


class _AsyncOptions(CallOptions, total=False):
    timeout: float | None
    deadline: float | None


class AsyncQuestionAnswerer:
    """Answers questions as a `QuestionAnswerer` does, with the same answers, without blocking the event loop.

    Requests wait in a bounded queue for worker threads, which cut texts, run the model and choose answers. A worker
    runs one batch of windows of a request, perhaps together with those of others, then turns to the next waiting
    request, so that a long document does not keep short questions waiting until it is finished.

    One object may be used by several event loops, also at once. In a forked process it starts with an empty queue; a
    pickle holds the answerer and the arguments, without the queue. Close it with `aclose`, or use it in `async with`.
    """

    def __init__(self, answerer: QuestionAnswerer, *, max_queued: int = 128, workers: int | None = None) -> None:
        """Answer with an answerer.

        Args:
            answerer: What answers; others may use it at the same time.
            max_queued: Number of requests that may wait, besides one for each worker. Further ones are refused.
            workers: Number of threads. By default one more than the model runs calls at once, which is 2 unless
                `num_streams` or ``performance_hint="THROUGHPUT"`` says otherwise: while one runs the model, on all
                cores, another cuts texts and chooses answers. More only wait for the model.

        Raises:
            InvalidInputError: A number is not an int of at least 1.
            InferenceError: OpenVINO could not compile the default length configuration.
        """
        self.answerer = answerer
        at_once = answerer.model.parallel_requests
        workers = at_once + 1 if workers is None else require_int("workers", workers, 1)
        self._runner = Runner(answerer, at_once)
        self._scheduler = Scheduler(
            workers=workers, max_queued=require_int("max_queued", max_queued, 1), at_once=at_once
        )
        weakref.finalize(self, self._scheduler.close, drain=False).atexit = False  # it ends its threads by itself

    def __reduce__(self) -> tuple[partial[AsyncQuestionAnswerer], tuple[QuestionAnswerer]]:
        return partial(type(self), max_queued=self.max_queued, workers=self.workers), (self.answerer,)

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | Path | None = None,
        *,
        max_queued: int = 128,
        workers: int | None = None,
        **options: Any,  # noqa: ANN401 - listed and checked by LengthAdaptiveModel.from_pretrained
    ) -> Self:
        """Load a bundle; other arguments and errors are those of `LengthAdaptiveModel.from_pretrained`. It blocks."""
        return cls(QuestionAnswerer.from_pretrained(id_or_path, **options), max_queued=max_queued, workers=workers)

    @property
    def max_queued(self) -> int:
        """Number of requests that may wait, besides one for each worker."""
        return self._scheduler.max_queued

    @property
    def workers(self) -> int:
        """Number of threads."""
        return self._scheduler.workers

    @property
    def queued(self) -> int:
        """Number of requests that wait for a worker, those included of which some windows have been run."""
        return self._scheduler.queued

    @property
    def running(self) -> int:
        """Number of requests that workers have in hand."""
        return self._scheduler.running

    @property
    def turns(self) -> int:
        """Number of turns in which workers have run a batch."""
        return self._scheduler.turns

    @overload
    async def __call__(
        self, question: str, context: str, *, top_k: Literal[1] | None = None, **options: Unpack[_AsyncOptions]
    ) -> Answer: ...

    @overload
    async def __call__(
        self, question: Pair, *, top_k: Literal[1] | None = None, **options: Unpack[_AsyncOptions]
    ) -> Answer: ...

    @overload
    async def __call__(
        self,
        question: str | Iterable[str] | Pair | Iterable[Pair] | None = None,
        context: str | Iterable[str] | Pair | None = None,
        *,
        data: Pair | Iterable[Pair] | None = None,
        X: Pair | Iterable[Pair] | None = None,  # noqa: N803 - the pipeline's name
        top_k: int | None = None,
        **options: Unpack[_AsyncOptions],
    ) -> Answer | list[Answer] | list[Answer | list[Answer]]: ...

    async def __call__(
        self,
        question: Any = None,
        context: Any = None,
        *,
        data: Any = None,
        X: Any = None,  # noqa: N803 - the pipeline's name
        top_k: int | None = None,
        topk: int | None = None,
        timeout: float | None = None,
        deadline: float | None = None,
        **options: Any,
    ) -> Answer | list[Answer] | list[Answer | list[Answer]]:
        """Answer one or several questions; arguments, results and errors are those of `QuestionAnswerer.__call__`.

        Cancelling the awaiting task takes the request out of the queue; what is being run of it is finished, but no
        more.

        Args:
            question: This argument and those below are the same as for `QuestionAnswerer.__call__`.
            context: The text to answer from.
            data: Mappings, as an alternative to `question`.
            X: The same as `data`.
            top_k: Maximum number of answers to each question.
            topk: Old name of `top_k`.
            timeout: Seconds from now in which the answer is wanted. A request that still waits by then is not run.
            deadline: The same as a point in time, as `time.monotonic` counts it; give one of the two.
            options: Further options of `QuestionAnswerer.__call__`.

        Raises:
            OverloadedError: The queue is full; raised at once. Or it is predicted that there will be no answer by the
                deadline, whatever others that wait run at; raised once the texts are cut.
            DeadlineExceededError: There was no answer by the deadline. Raised at the deadline.
            ClosedError: `aclose` was called.
            InvalidInputError: As for `QuestionAnswerer.__call__`; or `timeout` or `deadline` is not usable.
            LengthConfigError: Unknown or unfitting length configuration.
        """
        for name in _IGNORED:
            options.pop(name, None)
        options["top_k"] = topk if top_k is None else top_k
        questions = given_once(question, data, X)
        return in_pipeline_shape(
            (await self.answered(questions, context, timeout=timeout, deadline=deadline, **options)).answers
        )

    async def answer_batch(
        self,
        questions: str | Iterable[str] | Pair | Iterable[Pair],
        contexts: str | Iterable[str] | None = None,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        **options: Any,  # noqa: ANN401 - those of `QuestionAnswerer.answer_batch`
    ) -> list[list[Answer]]:
        """Answer questions as one request; arguments and results are those of `QuestionAnswerer.answer_batch`.

        `timeout`, `deadline` and errors are those of a call.
        """
        return (await self.answered(questions, contexts, timeout=timeout, deadline=deadline, **options)).answers

    async def answered(
        self,
        questions: str | Iterable[str] | Pair | Iterable[Pair],
        contexts: str | Iterable[str] | None = None,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        arrived: float | None = None,
        **options: Any,  # noqa: ANN401 - those of `QuestionAnswerer.answer_batch`
    ) -> Answered:
        """As `answer_batch`; also says which length configuration ran, and how many tokens each layer kept.

        `arrived` is the time of `time.monotonic` at which the time of a budget began; None for now.
        """
        work = Questions(self._runner, questions, contexts, monotonic() if arrived is None else arrived, options)
        try:
            answered = await self._result(work, timeout, deadline)
        except (DeadlineExceededError, OverloadedError):
            work.note_late()
            raise
        work.note_end(answered)
        return answered

    async def in_turn(
        self, function: Callable[[], Result], *, timeout: float | None = None, deadline: float | None = None
    ) -> Result:
        """Call a function in a worker when its turn comes, and return its result; it takes a place as a question does.

        `timeout`, `deadline` and their errors are those of a call; others are the function's.
        """
        return await self._result(Call(function), timeout, deadline)

    async def aclose(self, *, drain: bool = True) -> None:
        """Refuse new requests, and return when the accepted ones are done and the threads have ended.

        It can be called again, also with ``drain=False`` after a wait for the drain was given up.

        Args:
            drain: Whether accepted requests are still answered. Otherwise those that wait end with ClosedError.
        """
        await asyncio.wrap_future(self._scheduler.close(drain=drain))
        self._scheduler.join()  # the threads have nothing left to do

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _result(self, work: Work[Result], timeout: float | None, deadline: float | None) -> Result:
        now = monotonic()
        end = _deadline(now, timeout, deadline)
        if end <= now:
            raise deadline_exceeded(end - now)
        future = asyncio.wrap_future(self._scheduler.submit(work, end))
        if end == math.inf:
            return await future
        try:
            async with asyncio.timeout(end - now):
                return await future
        except DeadlineExceededError:  # found by a worker, before this loop had time to
            raise
        except TimeoutError as error:
            raise deadline_exceeded(end - now) from error


def _deadline(now: float, timeout: float | None, deadline: float | None) -> float:
    """The time of `time.monotonic` by which an answer is wanted."""
    if timeout is not None and deadline is not None:
        raise InvalidInputError("timeout and deadline set the same thing; give one")
    if deadline is not None:
        return _finite("deadline", deadline)
    if timeout is None:
        return math.inf
    if _finite("timeout", timeout) <= 0:
        raise InvalidInputError(f"timeout must be more than 0 seconds, not {timeout!r}")
    return now + timeout


def _finite(name: str, value: float) -> float:
    try:
        number = math.nan if isinstance(value, str | bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInputError(f"{name} must be a finite number of seconds, not {value!r}")
    return number
