"""The Pareto front of score against latency among trials, and the trials that get a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

from .latency import spread
from .losses import loss_bound
from .trial import Trial

NAMED_LIMITS: Mapping[str, float] = {"accurate": 0.5, "balanced": 1.0, "fast": 2.5}
"""Largest loss against `full`, in points, that each named length configuration is allowed."""


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


def choose_named(
    trials: Iterable[Trial], full: Trial, limits: Mapping[str, float] = NAMED_LIMITS, groups: Sequence[str] = ()
) -> dict[str, Trial]:
    """For each limit, the fastest trial whose loss against `full` is within it even at the upper bound.

    Args:
        trials: Trials on the examples of `full`.
        full: The trial of the configuration that keeps everything.
        limits: Largest value of `loss_bound`, by name.
        groups: The group of each example, such as its article.

    Returns:
        Trials by name, in the order of `limits`. Two names may share one. A name is absent if no trial that is
        faster than `full` is within its limit.
    """
    within = _within(trials, full, limits.values(), groups)
    return {name: own[0] for name, own in zip(limits, within, strict=True) if own}


def to_time(
    trials: Sequence[Trial], full: Trial, limits: Iterable[float], groups: Sequence[str], count: int
) -> list[Trial]:
    """The trials whose latencies should be measured before names are given, fastest first.

    Half of the places go to the fastest trials within each limit, as many for each: a latency that was predicted is
    some per cent too large or too small. The others are spread over the front.

    Args:
        trials: Trials on the examples of `full`, with predicted latencies.
        full: The trial of `full`.
        limits: Largest values of `loss_bound`.
        groups: The group of each example.
        count: Largest number of trials.
    """
    within = _within(trials, full, limits, groups)
    in_turn = [trial for row in zip_longest(*within) for trial in row if trial is not None]
    chosen = {trial.config: trial for trial in in_turn[: len(within)]}  # the fastest one within each limit
    for trial in in_turn:
        if len(chosen) < max(len(within), count // 2):
            chosen.setdefault(trial.config, trial)
    rest = [trial for trial in front(trials) if trial.config not in chosen]
    chosen |= {trial.config: trial for trial in spread(rest, max(0, count - len(chosen)))}
    return sorted(list(chosen.values())[:count], key=lambda trial: trial.latency_ms)


def _within(trials: Iterable[Trial], full: Trial, limits: Iterable[float], groups: Sequence[str]) -> list[list[Trial]]:
    """For each limit the trials that are faster than `full` and within it, fastest first."""
    faster = sorted((t for t in trials if t.latency_ms < full.latency_ms), key=lambda trial: trial.latency_ms)
    bounds = [loss_bound(trial, full, groups) for trial in faster]
    return [[trial for trial, bound in zip(faster, bounds, strict=True) if bound <= limit] for limit in limits]
