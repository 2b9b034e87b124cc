"""Answers to questions about texts, by the contract of transformers' question-answering pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

from .checks import require_int
from .errors import InvalidInputError
from .inference import run_windows
from .length_config import LengthConfig
from .model import LengthAdaptiveModel
from .no_answer import no_answer_score, with_empty_answer
from .spans import Answer, pipeline_answers
from .windows import WindowTokenizer, window_size

_BATCH_SIZE = 8  # windows: larger batches save nothing more on a CPU and take memory


class _Options(TypedDict, total=False):
    doc_stride: int | None
    max_answer_len: int
    max_seq_len: int | None
    max_question_len: int
    handle_impossible_answer: bool
    align_to_words: bool
    length_config: str | LengthConfig | Sequence[float] | None


class QuestionAnswerer:
    """Answers questions with a model. Safe to call from many threads."""

    def __init__(self, model: LengthAdaptiveModel) -> None:
        """Answer with a loaded model."""
        self.model = model
        self._tokenize = WindowTokenizer(model.tokenizer_file)

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | Path | None = None,
        **options: Any,  # noqa: ANN401 - listed and checked by LengthAdaptiveModel.from_pretrained
    ) -> QuestionAnswerer:
        """Load a bundle; arguments and errors are those of `LengthAdaptiveModel.from_pretrained`."""
        return cls(LengthAdaptiveModel.from_pretrained(id_or_path, **options))

    @overload
    def __call__(
        self, question: str, context: str, *, top_k: Literal[1] = 1, **options: Unpack[_Options]
    ) -> Answer: ...

    @overload
    def __call__(
        self, question: str, context: str, *, top_k: int, **options: Unpack[_Options]
    ) -> Answer | list[Answer]: ...

    @overload
    def __call__(
        self,
        question: list[str],
        context: str | list[str],
        *,
        top_k: Literal[1] = 1,
        **options: Unpack[_Options],
    ) -> Answer | list[Answer]: ...

    @overload
    def __call__(
        self, question: list[str], context: str | list[str], *, top_k: int, **options: Unpack[_Options]
    ) -> Answer | list[Answer] | list[Answer | list[Answer]]: ...

    def __call__(
        self,
        question: str | list[str],
        context: str | list[str],
        *,
        top_k: int = 1,
        doc_stride: int | None = None,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        max_question_len: int = 64,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
        length_config: str | LengthConfig | Sequence[float] | None = None,
    ) -> Answer | list[Answer] | list[Answer | list[Answer]]:
        """Answer a question, or many, from a context.

        Args:
            question: One question or a list of them.
            context: The text to answer from: one for all questions, or a list with one for each.
            top_k: Answers for each question; fewer if the context has not as many.
            doc_stride: Tokens that neighbouring windows over a long context share;
                ``min(max_seq_len // 2, 128)`` by default.
            max_answer_len: Most tokens of an answer.
            max_seq_len: Most tokens of a window; ``min(model.max_length, 384)`` by default.
            max_question_len: Of no effect, as in the pipeline with a fast tokenizer: questions are never cut.
            handle_impossible_answer: Let the empty answer take part, with its own score. Where the bundle has a
                threshold for it, which `calibrate` measures on data with unanswerable questions, that decides whether
                it comes first; else it is ranked by its score, as in the pipeline.
            align_to_words: Widen answers to whole words.
            length_config: Which tokens each layer keeps; see `LengthAdaptiveModel.__call__`.

        Returns:
            As the pipeline: for each question its `Answer`, or a list of them, best first, where there are
            several; a list of these unless there is exactly one question.

        Raises:
            InvalidInputError: A text is empty or not a string, lists differ in length, a question leaves no
                room in the window, or an option is out of range.
            LengthConfigError: Unknown or unfitting length configuration.
        """
        require_int("top_k", top_k, 1)
        require_int("max_answer_len", max_answer_len, 1)
        max_seq_len, doc_stride = window_size(self.model.max_length, max_seq_len, doc_stride)
        pairs = _pairs(question, context)
        windows = [self._tokenize(q, c, max_seq_len=max_seq_len, doc_stride=doc_stride) for q, c in pairs]
        outputs = run_windows(self.model, windows, length_config=length_config, batch_size=_BATCH_SIZE)
        results: list[Answer | list[Answer]] = []
        threshold = self.model.bundle.no_answer_threshold if handle_impossible_answer else None
        for (_, text), own_windows, own_outputs in zip(pairs, windows, outputs, strict=True):
            answers = pipeline_answers(
                text,
                own_windows,
                own_outputs,
                top_k=top_k,
                max_answer_len=max_answer_len,
                handle_impossible_answer=handle_impossible_answer,
                align_to_words=align_to_words,
            )
            if threshold is not None:
                score = no_answer_score(text, own_windows, own_outputs, max_answer_len=max_answer_len)
                answers = with_empty_answer(answers, own_windows, own_outputs, wins=score > threshold, top_k=top_k)
            results.append(answers[0] if len(answers) == 1 else answers)
        return results[0] if len(results) == 1 else results


def _pairs(question: str | list[str], context: str | list[str]) -> list[tuple[str, str]]:
    if not isinstance(question, list):
        if isinstance(context, list):
            raise InvalidInputError("one question with a list of contexts; give a list of questions of the same length")
        return [(question, context)]
    contexts = context if isinstance(context, list) else [context] * len(question)
    if len(question) != len(contexts):
        raise InvalidInputError(
            f"{len(question)} questions but {len(contexts)} contexts; give one for each question, or a str"
        )
    return list(zip(question, contexts, strict=True))
