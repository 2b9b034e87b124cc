"""Types of the arguments of `QuestionAnswerer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from dynamic_tinybert.runtime.length_config import LengthConfig

from .options import Merge

Pair = Mapping[str, Any]
"""A mapping with the keys ``question`` and ``context``; other keys are ignored."""


class CallOptions(TypedDict, total=False):
    """Options of `QuestionAnswerer.__call__`, without `top_k`, which decides the type of the result."""

    topk: int | None
    doc_stride: int | None
    max_answer_len: int | None
    max_seq_len: int | None
    handle_impossible_answer: bool | None
    align_to_words: bool | None
    merge: Merge | None
    length_config: str | LengthConfig | Sequence[float] | None
    batch_size: int | None
    compete: bool | None
    budget_ms: float | None
    max_f1_loss: float | None
    max_question_len: object
    padding: object
    num_workers: object
    framework: object
