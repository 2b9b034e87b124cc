"""Answers to questions about texts, by the contract of transformers' question-answering pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from .inference import run_windows
from .no_answer import answer_and_no_answer_score, with_empty_answer
from .pairs import question_context_pairs
from .spans import Answer, Merge, pipeline_answers
from .windows import Window, WindowTokenizer, window_size

_BATCH_SIZE = 8  # windows: larger batches save nothing more on a CPU and take memory

Pair = Mapping[str, Any]
"""A mapping with the keys ``question`` and ``context``; others are ignored."""


class _Options(TypedDict, total=False):
    topk: int | None
    doc_stride: int | None
    max_answer_len: int | None
    max_seq_len: int | None
    handle_impossible_answer: bool | None
    align_to_words: bool | None
    merge: Merge | None
    length_config: str | LengthConfig | Sequence[float] | None
    batch_size: int | None
    max_question_len: object
    padding: object
    num_workers: object
    framework: object


class QuestionAnswerer:
    """Answers questions with a model. Safe to call from many threads, and to fork and pickle as its model is."""

    def __init__(self, model: LengthAdaptiveModel) -> None:
        """Answer with a loaded model."""
        self.model = model
        self._tokenize = WindowTokenizer(model.tokenizer_file)

    def __reduce__(self) -> tuple[type[QuestionAnswerer], tuple[LengthAdaptiveModel]]:
        return type(self), (self.model,)

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
        self, question: str, context: str, *, top_k: Literal[1] | None = None, **options: Unpack[_Options]
    ) -> Answer: ...

    @overload
    def __call__(
        self, question: str, context: str, *, top_k: int | None, **options: Unpack[_Options]
    ) -> Answer | list[Answer]: ...

    @overload
    def __call__(self, question: Pair, *, top_k: Literal[1] | None = None, **options: Unpack[_Options]) -> Answer: ...

    @overload
    def __call__(
        self,
        question: Iterable[str],
        context: str | Iterable[str],
        *,
        top_k: Literal[1] | None = None,
        **options: Unpack[_Options],
    ) -> Answer | list[Answer]: ...

    @overload
    def __call__(
        self,
        question: str | Iterable[str] | Pair | Iterable[Pair] | None = None,
        context: str | Iterable[str] | Pair | None = None,
        *,
        data: Pair | Iterable[Pair] | None = None,
        X: Pair | Iterable[Pair] | None = None,  # noqa: N803 - the pipeline's name
        top_k: int | None = None,
        **options: Unpack[_Options],
    ) -> Answer | list[Answer] | list[Answer | list[Answer]]: ...

    def __call__(
        self,
        question: object = None,
        context: object = None,
        *,
        data: object = None,
        X: object = None,  # noqa: N803 - the pipeline's name
        top_k: int | None = None,
        topk: int | None = None,
        doc_stride: int | None = None,
        max_answer_len: int | None = None,
        max_seq_len: int | None = None,
        handle_impossible_answer: bool | None = None,
        align_to_words: bool | None = None,
        merge: Merge | None = None,
        length_config: str | LengthConfig | Sequence[float] | None = None,
        batch_size: int | None = None,
        max_question_len: object = None,
        padding: object = None,
        num_workers: object = None,
        framework: object = None,
    ) -> Answer | list[Answer] | list[Answer | list[Answer]]:
        """Answer a question, or many, from a context.

        Arguments are those of transformers' question-answering pipeline, by keyword or in this order; None takes the
        default of each. `docs/transformers-contract.md` says where the results differ.

        Args:
            question: One question or several (list, tuple, array). Or, instead of both texts, one mapping with the
                keys ``question`` and ``context``, or several.
            context: The text to answer from: one for all questions, or one for each.
            data: Mappings, as in the place of `question`.
            X: The same.
            top_k: Answers for each question, 1 by default; fewer if the context has not as many.
            topk: Old name of `top_k`.
            doc_stride: Tokens that neighbouring windows over a long context share, by default
                ``min(max_seq_len // 2, 128)``; half of the room where a long question leaves no more than that.
            max_answer_len: Most tokens of an answer, 15 by default.
            max_seq_len: Most tokens of a window, ``min(model.max_length, 384)`` by default.
            handle_impossible_answer: Let the empty answer take part, with its own score; no by default. Where the
                bundle has a threshold for it, which `calibrate` measures on data with unanswerable questions, that
                decides whether it comes first; else it is ranked by its score, as in the pipeline.
            align_to_words: Widen answers to whole words; yes by default.
            merge: What counts as one answer: "span", the default, the same place, whose score is that of the window
                that is surest of it; "text" the same text anywhere, whose scores are added up as the pipeline did.
            length_config: Which tokens each layer keeps; see `LengthAdaptiveModel.__call__`.
            batch_size: Most windows to run at once, 8 by default.
            max_question_len: Of no effect, as in the pipeline with a fast tokenizer: questions are never cut.
            padding: Of no effect: windows are padded as the model needs it.
            num_workers: Of no effect.
            framework: Of no effect.

        Returns:
            As the pipeline: for each question its `Answer`, or a list of them, best first, where there are
            several; a list of these unless there is exactly one question.

        Raises:
            InvalidInputError: A text is empty or not a string (of several, the message says which), lists differ in
                length, a question leaves no room in the window, or an option is out of range.
            LengthConfigError: Unknown or unfitting length configuration.
        """
        top_k = topk if top_k is None else top_k
        top_k = require_int("top_k", 1 if top_k is None else top_k, 1)
        max_answer_len = require_int("max_answer_len", 15 if max_answer_len is None else max_answer_len, 1)
        batch_size = require_int("batch_size", _BATCH_SIZE if batch_size is None else batch_size, 1)
        max_seq_len, doc_stride = window_size(self.model.max_length, max_seq_len, doc_stride)
        given = [value for value in (question, data, X) if value is not None]
        if len(given) > 1:
            raise InvalidInputError("questions are given twice; give one of question, data and X")
        pairs = question_context_pairs(given[0] if given else None, context)
        windows = self._windows(pairs, max_seq_len, doc_stride)
        outputs = run_windows(self.model, windows, length_config=length_config, batch_size=batch_size)
        results: list[Answer | list[Answer]] = []
        threshold = self.model.bundle.no_answer_threshold if handle_impossible_answer else None
        for (_, text), own_windows, own_outputs in zip(pairs, windows, outputs, strict=True):
            answers = pipeline_answers(
                text,
                own_windows,
                own_outputs,
                top_k=top_k,
                max_answer_len=max_answer_len,
                handle_impossible_answer=bool(handle_impossible_answer) and threshold is None,
                align_to_words=align_to_words is None or bool(align_to_words),
                merge="span" if merge is None else merge,
            )
            if threshold is not None:
                _, score = answer_and_no_answer_score(text, own_windows, own_outputs, max_answer_len=max_answer_len)
                answers = with_empty_answer(answers, own_windows, own_outputs, wins=score > threshold, top_k=top_k)
            results.append(answers[0] if len(answers) == 1 else answers)
        return results[0] if len(results) == 1 else results

    def _windows(self, pairs: Sequence[tuple[str, str]], max_seq_len: int, doc_stride: int) -> list[list[Window]]:
        windows = []
        for index, (question, context) in enumerate(pairs):
            try:
                windows.append(self._tokenize(question, context, max_seq_len=max_seq_len, doc_stride=doc_stride))
            except InvalidInputError as error:
                if len(pairs) == 1:
                    raise
                raise InvalidInputError(f"item {index} of {len(pairs)}, counted from 0: {error}") from error
        return windows
