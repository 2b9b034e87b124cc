"""Options of question answering: their defaults, which all callers share, and their checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import InvalidInputError

Merge = Literal["span", "text"]
"""Which answers count as the same one: those with the same characters of the context, or those with the same text."""

_SMALLEST = {"top_k": 1, "max_answer_len": 1, "max_seq_len": 1, "doc_stride": 0, "batch_size": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """How contexts are cut into windows and answers are chosen.

    The defaults are those of transformers' question-answering pipeline, except `merge` and `batch_size`.

    Attributes:
        top_k: Maximum number of answers to each question.
        max_answer_len: Maximum length of an answer in tokens.
        max_seq_len: Maximum length of a window in tokens, including the question and special tokens.
        doc_stride: Number of context tokens that neighbouring windows share.
        handle_impossible_answer: Whether the empty answer competes with the others.
        align_to_words: Whether answers are widened to whole words.
        merge: Which answers count as the same one.
        batch_size: Maximum number of windows that run at once.
        compete: Whether the windows of a context compete: probabilities are over the whole context, and windows that
            are not likely to win any more do not run.

    Raises:
        InvalidInputError: An option has the wrong type or is out of range.
    """

    top_k: int = 1
    max_answer_len: int = 15
    max_seq_len: int = 384
    doc_stride: int = 128
    handle_impossible_answer: bool = False
    align_to_words: bool = True
    merge: Merge = "span"
    batch_size: int = 8  # larger batches are no faster on a CPU and need more memory
    compete: bool = False

    def __post_init__(self) -> None:
        for name, least in _SMALLEST.items():
            object.__setattr__(self, name, require_int(name, getattr(self, name), least))
        for name in ("handle_impossible_answer", "align_to_words", "compete"):
            object.__setattr__(self, name, bool(getattr(self, name)))
        if self.merge not in get_args(Merge):
            raise InvalidInputError(f"merge must be 'span' or 'text', not {self.merge!r}")

    @classmethod
    def for_model(
        cls,
        max_length: int,
        *,
        top_k: int | None = None,
        max_answer_len: int | None = None,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        handle_impossible_answer: bool | None = None,
        align_to_words: bool | None = None,
        merge: Merge | None = None,
        batch_size: int | None = None,
        compete: bool | None = None,
    ) -> AnswerOptions:
        """Options for a model that reads up to `max_length` tokens; None selects an option's default.

        Raises:
            InvalidInputError: An option has the wrong type or is out of range.
        """
        size, stride = window_size(max_length, max_seq_len, doc_stride)
        given: dict[str, Any] = {
            "top_k": top_k,
            "max_answer_len": max_answer_len,
            "max_seq_len": size,
            "doc_stride": stride,
            "handle_impossible_answer": handle_impossible_answer,
            "align_to_words": align_to_words,
            "merge": merge,
            "batch_size": batch_size,
            "compete": compete,
        }
        return cls(**{name: value for name, value in given.items() if value is not None})


PIPELINE = AnswerOptions()
"""Defaults of answering and explaining."""

SQUAD = AnswerOptions(max_answer_len=30, align_to_words=False, batch_size=1)
"""Defaults of evaluation: answers as long as SQuAD's scripts allow, and one window at a time to measure latency."""


def window_size(max_length: int, max_seq_len: int | None = None, doc_stride: int | None = None) -> tuple[int, int]:
    """Check the length of windows and their overlap in tokens, and fill in transformers' defaults.

    Args:
        max_length: Maximum number of tokens that the model reads.
        max_seq_len: Length of a window; None selects ``min(max_length, 384)``.
        doc_stride: Overlap of neighbouring windows; None selects ``min(max_seq_len // 2, 128)``.

    Returns:
        `max_seq_len` and `doc_stride`.

    Raises:
        InvalidInputError: A size is not an int or out of range.
    """
    if max_seq_len is None:
        max_seq_len = min(max_length, PIPELINE.max_seq_len)
    max_seq_len = require_int("max_seq_len", max_seq_len, 1)
    if doc_stride is None:
        doc_stride = min(max_seq_len // 2, PIPELINE.doc_stride)
    doc_stride = require_int("doc_stride", doc_stride, 0)
    if max_seq_len > max_length:
        raise InvalidInputError(f"max_seq_len={max_seq_len} is more than the {max_length} tokens this model reads")
    if doc_stride > max_seq_len:
        raise InvalidInputError(f"doc_stride={doc_stride} is larger than max_seq_len={max_seq_len}")
    return max_seq_len, doc_stride
