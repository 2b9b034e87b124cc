"""Read texts and pairs of texts: inputs to calibrate INT8 on, and others to compare it with FP32 on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.calibration.data import shuffled, split_by_group
from dynamic_tinybert.calibration.int8.tuning import Int8Change
from dynamic_tinybert.export.tasks.samples import Samples
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.batches import stack
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.tasks.sequence_classification.example import Example
from dynamic_tinybert.runtime.tasks.sequence_classification.inference import run_texts
from dynamic_tinybert.runtime.tasks.sequence_classification.labels import Labels, sigmoid, softmax
from dynamic_tinybert.runtime.tasks.sequence_classification.measure import TextMeasure
from dynamic_tinybert.runtime.tasks.sequence_classification.tokens import TextTokenizer, TextTokens

_SEED = 0
_HELD_OUT_SHARE = 0.2
_HELD_OUT_MOST = 500
_BATCH_SIZE = 8

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HeldOutTexts:
    """Texts to compare INT8 with FP32 on; the `HeldOut` of this task.

    Attributes:
        name: Where they come from, for messages.
        tokens: The texts.
        labels: The labels of the model.
    """

    name: str
    tokens: Sequence[TextTokens]
    labels: Labels

    def __len__(self) -> int:
        return len(self.tokens)

    def first(self, count: int | None) -> HeldOutTexts:
        """The first `count` texts, or all if it is None."""
        return HeldOutTexts(self.name, self.tokens[:count], self.labels)

    def run(self, model: LengthAdaptiveModel) -> list[Logits]:
        """The logits of a model for each text, float32 [labels], at full length."""
        outputs = run_texts(model, self.tokens, self.labels, length_config="full", batch_size=_BATCH_SIZE)
        return [output.logits for output in outputs]

    def compare(self, fp32: Sequence[Logits], int8: Sequence[Logits]) -> Int8Change:
        """Compare the logits of two models.

        The probability that moves is the total variation distance of the softmax or, of a model with one output or with
        labels that go together, the difference of the sigmoids. "Same answers" are texts with the same class or labels
        and, for one output, pairs of texts in the same order.
        """
        before, after = (np.asarray(own, np.float64) for own in (fp32, int8))
        if self.labels.kind == "classes":
            moved = 50 * np.abs(softmax(before) - softmax(after)).sum(1)
            same = before.argmax(1) == after.argmax(1)
        else:
            moved = 100 * np.abs(sigmoid(before) - sigmoid(after)).mean(1)
            same = np.all((before > 0) == (after > 0), 1)
        return Int8Change(
            moved=float(moved.mean()),
            logit_error=float(np.abs(before - after).mean()),
            same_answers=100 * (_in_same_order(before, after) if self.labels.kind == "score" else float(same.mean())),
            f1=None,
            questions=len(self),
        )


def read_samples(
    tokenizer_file: Path, data: Path, validation: Path | None, count: int, max_length: int
) -> Samples[HeldOutTexts]:
    """Draw texts to calibrate on and texts to compare on; the same arguments always give the same ones.

    The held-out texts are those of `validation` or, without it, up to 500 texts of groups of `data` that are not
    calibrated on. Labels are not needed. Longer texts are cut, and those without a token are skipped.

    Args:
        tokenizer_file: The checkpoint's tokenizer.json; config.json is beside it.
        data: Texts in a form that `read_texts` reads.
        validation: Texts to compare on.
        count: Largest number of calibration inputs.
        max_length: Longest input of the model, in tokens.

    Raises:
        DataError: A file cannot be read or holds no usable text; without `validation`, `data` has one group only.
    """
    labels = Labels.in_folder(tokenizer_file.parent)
    measure = TextMeasure(TextTokenizer(tokenizer_file, max_length), labels)
    read = [measure.read(file, strict=False) for file in (data, validation) if file is not None]
    examples: Sequence[Example]
    if validation is not None:
        examples, others = (file.examples for file in read)
        name, most = validation.name, None
    else:
        examples, others = split_by_group(read[0].examples, measure.group_of, (1 - _HELD_OUT_SHARE,), _SEED)
        if not others:
            raise DataError(
                f"the texts of {data} are all of one group, so that none can be held out to compare INT8 on; give more "
                "groups, or other texts as validation"
            )
        name, most = f"held-out groups of {data.name}", _HELD_OUT_MOST
    held_out = shuffled(others, _SEED)[:most]
    return Samples(
        calibration=[stack([measure.tokens_of(example)]) for example in shuffled(examples, _SEED)[:count]],
        held_out=HeldOutTexts(name, [measure.tokens_of(example) for example in held_out], labels),
        lines=[line for file in read for line in file.lines],
    )


def _in_same_order(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> float:
    """The share of pairs of different outputs, [n, 1], that have the same order in both; 1 if there is no such pair."""
    first, second = before[:, 0], after[:, 0]
    counts = np.unique(first, return_counts=True)[1]
    different = (len(first) * (len(first) - 1) - int((counts * (counts - 1)).sum())) // 2
    if not different:
        return 1.0
    ranks = np.unique(second, return_inverse=True)[1]
    # Where outputs are equal before, those that are larger after come first, so that none of these pairs counts.
    return _rising_pairs(ranks[np.lexsort((-ranks, first))]) / different


def _rising_pairs(ranks: npt.NDArray[np.int64]) -> int:
    """The number of pairs i < j of integers with ranks[i] < ranks[j], in memory for n numbers.

    Two different numbers differ first in one bit, in which the smaller one has 0: for each bit, the ones are counted
    with the zeros that stand before them among the numbers with the same higher bits.
    """
    found = 0
    for bit in range(int(ranks.max()).bit_length()):
        higher = ranks >> (bit + 1)
        order = np.argsort(higher, kind="stable")
        higher, ones = higher[order], (ranks[order] >> bit & 1).astype(bool)
        zeros = np.concatenate([[0], np.cumsum(~ones)])
        found += int((zeros[1:] - zeros[np.searchsorted(higher, higher)])[ones].sum())
    return found
