"""Find the INT8 setting that changes a model's outputs least, on held-out examples.

This search replaces Neural Compressor's `autotune`; the reason is in
docs/decisions/0024-int8-settings-by-moved-probability.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .input_checks import ActivationRanges

STRENGTHS = (0.5, 0.6, 0.7, 0.8, 0.9)
OTHER_RANGES: tuple[ActivationRanges, ...] = ("extremes", "histogram")

LEAST_GAIN = 0.05
"""Minimum improvement, in points of moved probability, to accept a step. (Four times the windows gained 0.01 on
MiniLM.)"""
MOVED_TOLERANCE = 5.0
"""Largest tolerable share of moved probability, in percent."""
F1_TOLERANCE = 0.25
"""Largest tolerable loss of F1, in points."""

_PROBE = 100
"""Number of questions on which each matmul is tried in FP32: there are many matmuls, and differences are clear."""


@dataclass(frozen=True)
class Int8Setting:
    """How a model is quantised.

    Attributes:
        smooth_alpha: SmoothQuant's strength; None for no SmoothQuant.
        ranges: How activation ranges are derived from the calibration windows.
        num_samples: Number of calibration windows.
        fp32_linears: Names of Linear modules that stay in FP32.
    """

    smooth_alpha: float | None = 0.75
    ranges: ActivationRanges = "moving-average"
    num_samples: int = 128
    fp32_linears: tuple[str, ...] = ()


@dataclass(frozen=True)
class Int8Change:
    """What INT8 changes on held-out examples.

    Attributes:
        moved: Percent of the probability that lies on other tokens than in FP32: for question answering, the total
            variation distance of the softmax over the context's tokens, averaged over start and end of all windows; for
            classification that of the classes.
        logit_error: Mean absolute difference of these logits.
        same_answers: Percent of questions whose answer is the same text, or of texts with the same class.
        f1: INT8's F1 minus FP32's, with the bounds of its 95 % interval by paired bootstrap; None without answers.
        questions: Number of examples.
    """

    moved: float
    logit_error: float
    same_answers: float
    f1: tuple[float, float, float] | None
    questions: int

    @property
    def tolerable(self) -> bool:
        """Whether at most 5 % of the probability moved, and there is no significant loss of more than 0.25 F1."""
        if self.f1 is None:
            return self.moved <= MOVED_TOLERANCE
        mean, _, high = self.f1
        return self.moved <= MOVED_TOLERANCE and not (mean < -F1_TOLERANCE and high < 0)


@dataclass(frozen=True)
class Step:
    """A setting that was tried.

    Attributes:
        setting: The setting.
        change: What it changed against FP32.
        gain: How many points less probability it moved than the best setting before it; None for the first.
        fp32_share: Share of the Linear modules' MACs that stay in FP32, 0 to 1.
    """

    setting: Int8Setting
    change: Int8Change
    gain: float | None
    fp32_share: float

    @property
    def kept(self) -> bool:
        """Whether it was the best step so far; the last such step is the result."""
        return self.gain is None or self.gain > LEAST_GAIN


class Int8Trial(Protocol):
    """Quantises with a setting and compares with FP32, on the first `limit` questions if it is not None."""

    def __call__(self, setting: Int8Setting, limit: int | None = None) -> Int8Change: ...  # noqa: D102


def tune(
    trial: Int8Trial,
    *,
    num_samples: int,
    more_samples: int,
    macs: Mapping[str, int],
    report: Callable[[Step], None] = lambda step: None,
) -> list[Step]:
    """Search in steps, each from the best setting so far: SmoothQuant's strength, ranges, more windows, FP32 matmuls.

    Settings are compared by the probability that they move: that can be measured on a few hundred questions, while F1
    would need tens of thousands. If the change is still not tolerable, matmuls are left in FP32, those that gain most
    first, until it is, or until a quarter of them are.

    Args:
        trial: Measures a setting.
        num_samples: Number of calibration windows to start with.
        more_samples: Number of calibration windows to try at the end, if it is larger.
        macs: MACs per token of each Linear module that may be quantised, by name.
        report: Called with each step after it was measured.

    Returns:
        All steps in order, for `chosen`.
    """
    steps: list[Step] = []

    def attempt(setting: Int8Setting) -> None:
        change = trial(setting)
        gain = chosen(steps).change.moved - change.moved if steps else None
        share = sum(macs[name] for name in setting.fp32_linears) / sum(macs.values())
        steps.append(Step(setting, change, gain, share))
        report(steps[-1])

    attempt(Int8Setting(smooth_alpha=None, num_samples=num_samples))
    for strength in STRENGTHS:
        attempt(replace(chosen(steps).setting, smooth_alpha=strength))
    for ranges in OTHER_RANGES:
        attempt(replace(chosen(steps).setting, ranges=ranges))
    if more_samples > num_samples:
        attempt(replace(chosen(steps).setting, num_samples=more_samples))
    if not chosen(steps).change.tolerable:
        for name in _by_gain(trial, chosen(steps).setting, macs)[: max(1, len(macs) // 4)]:
            setting = chosen(steps).setting
            attempt(replace(setting, fp32_linears=(*setting.fp32_linears, name)))
            if chosen(steps).change.tolerable:
                break
    return steps


def chosen(steps: Sequence[Step]) -> Step:
    """The best step, whose setting is the one to use."""
    return next(step for step in reversed(steps) if step.kept)


def _by_gain(trial: Int8Trial, setting: Int8Setting, names: Iterable[str]) -> list[str]:
    """The matmuls in the order of the probability that is moved when one alone stays in FP32, least first."""
    moved = {name: trial(replace(setting, fp32_linears=(name,)), limit=_PROBE).moved for name in names}
    return sorted(moved, key=moved.__getitem__)
