"""What the outputs of a classifier are scored against: the labels of the data, or the outputs of `full`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from .evaluation import Evaluation, evaluation_of, run_examples
from .example import Example, Label
from .inference import logits_of
from .labels import Floats, Labels, sigmoid, softmax
from .tokens import TextTokens

_BATCH = 8
_WIDTH = 4.0
"""Standard deviations of a regression's outputs that count as far apart as 0 and 1 do for the sigmoid."""

TokensOf = Callable[[Example], TextTokens]


def metric_of(labels: Labels) -> str:
    """The name of the score: closeness for a model with one output, else accuracy."""
    return "closeness" if labels.kind == "score" else "accuracy"


@dataclass(frozen=True)
class TextScoring:
    """Examples and what counts as right; the `Scoring` of this task.

    Attributes:
        examples: The examples, all of which the model can read.
        labels: The labels of the model.
        tokens_of: Tokenizes an example.
        by_full: The logits of `full` for each example, float32 [n, labels]; None if every example has a label.
    """

    examples: Sequence[Example]
    labels: Labels
    tokens_of: TokensOf
    by_full: npt.NDArray[np.float32] | None

    @classmethod
    def of(
        cls, model: LengthAdaptiveModel, examples: Sequence[Example], labels: Labels, tokens_of: TokensOf
    ) -> TextScoring:
        """Take the labels of the data, and the outputs of `full` where there are none or the model has one output."""
        by_full = None
        if labels.kind == "score" or any(example.label is None for example in examples):
            runs = run_examples(model, examples, tokens_of, labels, length_config="full", batch_size=_BATCH)
            by_full = logits_of(runs.outputs)
        return cls(examples, labels, tokens_of, by_full)

    @property
    def scored_by(self) -> str:
        """The kind of labels: "labels", "agreement", or "labels and agreement"."""
        if self.by_full is None:
            return "labels"
        some = self.labels.kind != "score" and any(example.label is not None for example in self.examples)
        return "labels and agreement" if some else "agreement"

    lines: tuple[str, ...] = ()

    @property
    def manifest(self) -> Mapping[str, float]:
        """Nothing is recorded."""
        return {}

    def evaluate(
        self,
        model: LengthAdaptiveModel,
        length_config: str | LengthConfig,
        *,
        batch_size: int,
        span: slice = slice(None),
        progress: bool = False,
    ) -> Evaluation:
        """Run the examples of a span, by default all, and score them."""
        examples = self.examples[span]
        runs = run_examples(
            model,
            examples,
            self.tokens_of,
            self.labels,
            length_config=length_config,
            batch_size=batch_size,
            progress=progress,
        )
        scores = self._scores(examples, logits_of(runs.outputs), span)
        return evaluation_of(model, examples, runs, self.labels, metric_of(self.labels), scores, length_config)

    def for_reporting(self, model: LengthAdaptiveModel, examples: Sequence[Example]) -> TextScoring:
        """Other examples, scored in the same way."""
        return TextScoring.of(model, examples, self.labels, self.tokens_of)

    def _scores(self, examples: Sequence[Example], logits: npt.NDArray[np.float32], span: slice) -> Floats:
        full = None if self.by_full is None else self.by_full[span]
        if self.labels.kind == "score":
            assert full is not None
            assert self.by_full is not None
            return closeness(logits[:, 0], full[:, 0], _unit(self.labels, self.by_full[:, 0]))
        score = _class_score if self.labels.kind == "classes" else _labels_score
        rows = [None] * len(examples) if full is None else list(full)
        return np.array([score(example.label, *own) for example, *own in zip(examples, logits, rows, strict=True)])


def closeness(values: Floats, expected: Floats, unit: Callable[[Floats], Floats] = sigmoid) -> npt.NDArray[np.floating]:
    """How close outputs are to those expected, in points: 100 for equal ones, 0 for the ends of `unit`'s range.

    Args:
        values: Logits [n].
        expected: Other logits [n].
        unit: Brings logits to the range 0 to 1.
    """
    result: npt.NDArray[np.floating] = 100 * (1 - np.minimum(1, np.abs(unit(values) - unit(expected))))
    return result


def _unit(labels: Labels, by_full: Floats) -> Callable[[Floats], Floats]:
    """The sigmoid or, as a regression's outputs have a unit of their own, a share of what they spread over."""
    if labels.problem_type != "regression":
        return sigmoid
    width = _WIDTH * float(by_full.std()) or 1.0
    return lambda logits: logits / width


def _class_score(label: Label | None, logits: Floats, full: Floats | None) -> float:
    """100 for the right class; without a label, the probability by `full` of the class that was found."""
    best = int(logits.argmax())
    if label is not None:
        return 100.0 * (best == label)
    assert full is not None
    return 100 * float(softmax(full)[best])


def _labels_score(label: Label | None, logits: Floats, full: Floats | None) -> float:
    """The share of labels decided rightly; without labels, the mean probability by `full` of these decisions."""
    found = logits > 0
    if isinstance(label, frozenset):
        return 100 * float(np.mean(found == np.isin(np.arange(len(found)), list(label))))
    assert full is not None
    return 100 * float(np.where(found, sigmoid(full), 1 - sigmoid(full)).mean())
