"""The contents of a report, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from dynamic_tinybert.runtime.length_config import LengthConfig

from .decomposition import Decomposition
from .length_gain import LengthGain


@dataclass(frozen=True)
class Point:
    """A length configuration as a point in the plot of the score against cost.

    Attributes:
        latency_ms: Mean time of an example in milliseconds.
        score: 0 to 100.
        macs_fewer: MACs of `full` divided by those of the configuration.
    """

    latency_ms: float
    score: float
    macs_fewer: float


@dataclass(frozen=True)
class Peer:
    """Another system for comparison: its name, its mean time of an example in milliseconds, its score, 0 to 100."""

    name: str
    latency_ms: float
    score: float


@dataclass(frozen=True)
class Latency:
    """Times of an example in milliseconds: mean, percentiles and the longest."""

    mean: float
    p50: float
    p95: float
    longest: float


@dataclass(frozen=True)
class Spread:
    """Numbers of tokens over all windows: mean, 10th percentile and 90th percentile."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class NamedResult:
    """A named length configuration with its measurements.

    Attributes:
        name: Its name.
        config: Its keep ratios and thresholds.
        point: Its point in the plot of the score against cost, measured like `Report.front`.
        means: The mean of each of `Report.metrics`, 0 to 100; the first is that of the scores.
        difference: Score minus that of `full` on the same examples, and the lower and upper end of the 95 % interval of
            this difference; None for `full`, and if `full` was not evaluated.
        macs_fewer: MACs of `full` divided by those of this configuration.
        latency: Times of an example in milliseconds.
        kept: Tokens that enter the first layer, then those that each layer passes on, [layers + 1].
    """

    name: str
    config: LengthConfig
    point: Point
    means: tuple[float, ...]
    difference: tuple[float, float, float] | None
    macs_fewer: float
    latency: Latency
    kept: tuple[Spread, ...]

    @property
    def mean_kept(self) -> float:
        """Mean number of tokens that a layer passes on."""
        return fmean(spread.mean for spread in self.kept[1:])


@dataclass(frozen=True)
class Report:
    """Everything that a page shows.

    Attributes:
        title: The heading: the model that was measured.
        facts: The lines under the heading: bundle, data, significance, CPU, threads, versions, date.
        metrics: Names of the figures that the task measures; the first is the score.
        example: What an example is called, such as "question".
        named: Named length configurations in the order to show them, at least one.
        points: All configurations that a search evaluated.
        front: The Pareto front of `points`.
        peers: Other systems on the same examples and machine.
        plot_data: Describes the examples that `points`, `front` and `NamedResult.point` were scored on.
        decomposition: Where the speedup comes from; None if not measured.
        by_length: The gain of the configurations at some lengths of the input, from short to long.
        notes: How everything was measured, a paragraph each.
    """

    title: str
    facts: Mapping[str, str]
    metrics: tuple[str, ...]
    example: str
    named: tuple[NamedResult, ...]
    plot_data: str
    points: tuple[Point, ...] = ()
    front: tuple[Point, ...] = ()
    peers: tuple[Peer, ...] = ()
    decomposition: Decomposition | None = None
    by_length: tuple[LengthGain, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def score(self) -> str:
        """Name of the score."""
        return self.metrics[0]
