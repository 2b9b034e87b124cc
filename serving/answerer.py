"""Answer questions asynchronously, in the event loop of a service."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Literal, Self, Unpack, overload

from dynamic_tinybert.runtime.common.errors import DeadlineExceededError, OverloadedError
from dynamic_tinybert.runtime.tasks.question_answering.answerer import QuestionAnswerer
from dynamic_tinybert.runtime.tasks.question_answering.answers import Answer, in_pipeline_shape
from dynamic_tinybert.runtime.tasks.question_answering.call_options import CallOptions, Pair
from dynamic_tinybert.runtime.tasks.question_answering.pairs import given_once
from dynamic_tinybert.runtime.tasks.question_answering.plan import Answered

from .questions import Questions
from .runner import Runner
from .service import AsyncService

_IGNORED = ("max_question_len", "padding", "num_workers", "framework")  # as `QuestionAnswerer.__call__` does


class _AsyncOptions(CallOptions, total=False):
    timeout: float | None
    deadline: float | None


class AsyncQuestionAnswerer(AsyncService):
    """Answers questions as a `QuestionAnswerer` does, with the same answers, without blocking the event loop.

    Worker threads cut texts, run the model and choose answers. A batch of windows may be run together with those of
    other requests. A pickle holds the answerer and the arguments, without the queue.
    """

    def __init__(self, answerer: QuestionAnswerer, *, max_queued: int = 128, workers: int | None = None) -> None:
        """Answer with an answerer, which others may use at the same time; other arguments are those of the base.

        Raises:
            InvalidInputError: A number is not an int of at least 1.
            InferenceError: OpenVINO could not compile the default length configuration.
        """
        super().__init__(answerer.model, max_queued=max_queued, workers=workers)
        self.answerer = answerer
        self._runner = Runner(answerer, self._at_once)

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
