"""The Pareto front of score against latency among trials, and the trials on it that get a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import NormalDist

from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap

from .trial import Trial

NAMED_LIMITS: Mapping[str, float] = {"accurate": 0.5, "balanced": 1.0, "fast": 2.5}
"""Largest loss against `full`, in points, that each named length configuration is allowed."""

_CONFIDENCE = 0.8
ONE_SIDED = NormalDist().inv_cdf(_CONFIDENCE)
"""Number of standard errors between a loss and its upper bound."""


def front(trials: Iterable[Trial]) -> list[Trial]:
    """The trials that no other trial dominates, fastest first.

    One trial dominates another if it is better in score or latency and at least as good in both.
    """
    ordered = sorted(trials, key=lambda trial: (trial.latency_ms, -trial.score))
    found: list[Trial] = []
    for trial in ordered:
        equals_last = found and (trial.score, trial.latency_ms) == (found[-1].score, found[-1].latency_ms)
        if not found or trial.score > found[-1].score or equals_last:
            found.append(trial)
    return found


def loss_bound(trial: Trial, full: Trial) -> float:
    """Upper bound of the points that `trial` loses against `full`, one-sided at 80 %, by paired bootstrap."""
    return paired_bootstrap(full.scores, trial.scores, samples=2_000, level=2 * _CONFIDENCE - 1)[2]


def choose_named(trials: Iterable[Trial], full: Trial, limits: Mapping[str, float] = NAMED_LIMITS) -> dict[str, Trial]:
    """For each limit, the fastest trial whose loss against `full` is within it even at the upper bound.

    Args:
        trials: A front of trials on the examples of `full`.
        full: The trial of the configuration that keeps everything.
        limits: Largest value of `loss_bound`, by name.

    Returns:
        Trials by name, in the order of `limits`. Two names may share one. A name is absent if no trial that is
        faster than `full` is within its limit.
    """
    faster = sorted((t for t in trials if t.latency_ms < full.latency_ms), key=lambda trial: trial.latency_ms)
    bounds = [loss_bound(trial, full) for trial in faster]
    chosen = {}
    for name, limit in limits.items():
        within = [trial for trial, bound in zip(faster, bounds, strict=True) if bound <= limit]
        if within:
            chosen[name] = within[0]
    return chosen
