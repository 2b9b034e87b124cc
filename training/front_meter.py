"""Measure the quality and the MACs of a model in training, at several length configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from tqdm import tqdm

from dynamic_tinybert.calibration.significance.thresholds import SignificanceSample
from dynamic_tinybert.modeling.reference import ReferenceModel
from dynamic_tinybert.runtime.batches import TokenSequence
from dynamic_tinybert.runtime.length_config import LengthConfig

from .length_configs import ATTENTION_SHARES, LEARNT_SHARES, falling_shares
from .reference_runs import cost_function, sampled_significance
from .tasks.task import ScoredInputs

_FORMER_NAMES = {"question_f1": "scores"}  # in journals and files of earlier versions


@dataclass(frozen=True)
class Point:
    """Quality and cost of a model at one length configuration.

    Attributes:
        name: Name of the configuration.
        scores: Score of each example, in points of 100; for question answering F1.
        macs: Mean number of executed multiply-accumulates of an example, with all its windows.
        keep_ratios: Keep ratios of the configuration.
        thresholds: Thresholds of the configuration.
    """

    name: str
    scores: tuple[float, ...]
    macs: float
    keep_ratios: tuple[float, ...]
    thresholds: tuple[float | None, ...]

    @property
    def score(self) -> float:
        """Mean score, in points of 100."""
        return fmean(self.scores)

    @property
    def f1(self) -> float:
        """The mean score under its name in question answering: F1 in percent."""
        return self.score

    @property
    def question_f1(self) -> tuple[float, ...]:
        """The scores under their name in question answering: F1 of each question in percent."""
        return self.scores

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Point:
        """Make the point from the result of `to_dict`, which may have been stored as JSON."""
        fields: dict[str, Any] = {
            _FORMER_NAMES.get(name, name): tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**fields)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


class FrontMeter:
    """Measures models on the same examples, at `full` and at configurations that keep fewer and fewer tokens.

    Args:
        scored: The examples.
        sample: Model inputs to take thresholds from; they should come from other examples.
    """

    def __init__(self, scored: ScoredInputs, sample: Sequence[TokenSequence]) -> None:
        self._scored = scored
        self._sample = sample

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return self._scored.metric

    def front(
        self,
        reference: ReferenceModel,
        more: Mapping[str, LengthConfig] | None = None,
        *,
        every: int = 1,
    ) -> list[Point]:
        """Measure `full`, each `every`-th configuration of the front, named by its last share, and those in `more`."""
        configs = self._configs(reference, every) | dict(more or {})
        return [self.point(reference, name, c) for name, c in tqdm(configs.items(), desc="Measuring", disable=None)]

    def point(self, reference: ReferenceModel, name: str, config: LengthConfig) -> Point:
        """Measure one configuration."""
        examples = self._scored.scores(reference, config)
        cost = cost_function(reference, config)
        macs = [sum(cost(length, kept) for length, kept in example.kept) for example in examples]
        scores = tuple(example.score for example in examples)
        return Point(name, scores, fmean(macs), config.keep_ratios, config.thresholds)

    def _configs(self, reference: ReferenceModel, every: int) -> dict[str, LengthConfig]:
        num_layers = reference.model.config.num_hidden_layers
        configs = {"full": LengthConfig.full(num_layers)}
        if reference.significance == "attention":
            for last in ATTENTION_SHARES[::every]:
                ratios = falling_shares(num_layers, range(num_layers), last ** (1 / num_layers), last)
                configs[f"{last:g}"] = LengthConfig(ratios.shares)
            return configs
        significance = sampled_significance(reference, self._sample)
        sample = SignificanceSample(significance, num_layers, rule_layer=reference.rule_layer)
        for last in LEARNT_SHARES[::every]:
            configs[f"{last:g}"] = sample.length_config(falling_shares(num_layers, sample.layers, 2 * last, last))
        return configs
