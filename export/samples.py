"""Calibration samples: windows of real questions and contexts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dynamic_tinybert.runtime.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.inference import stack_windows
from dynamic_tinybert.runtime.squad import read_squad
from dynamic_tinybert.runtime.windows import WindowTokenizer, window_size

from .parity import Batch


def calibration_samples(tokenizer_file: Path, data: Path, count: int, max_length: int) -> list[Batch]:
    """Windows of questions drawn from all over a SQuAD file, always the same for the same arguments.

    A question that the model cannot read, too long or without a token, is skipped.

    Args:
        tokenizer_file: The checkpoint's tokenizer.json.
        data: SQuAD v1.1 JSON; answers are not needed.
        count: Most windows to take.
        max_length: Longest input of the model in tokens.

    Returns:
        Batches of one unpadded window each.

    Raises:
        DataError: The file is not SQuAD JSON or holds no usable question.
    """
    examples = read_squad(data)
    tokenize = WindowTokenizer(tokenizer_file)
    max_seq_len, doc_stride = window_size(max_length)
    samples: list[Batch] = []
    unusable: InvalidInputError | None = None
    for index in np.random.default_rng(0).permutation(len(examples)):
        example = examples[index]
        try:
            windows = tokenize(example.question, example.context, max_seq_len=max_seq_len, doc_stride=doc_stride)
        except InvalidInputError as error:
            unusable = error
            continue
        samples += [stack_windows([window]) for window in windows]
        if len(samples) >= count:
            break
    if not samples:
        raise DataError(f"{data} holds no question that this model can read: {unusable}") from unusable
    return samples[:count]
