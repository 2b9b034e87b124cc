"""The best trade-offs of F1 against latency among trials, and those that get a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import NormalDist

from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap

from .trial import Trial

NAMED_LIMITS: Mapping[str, float] = {"accurate": 0.5, "balanced": 1.0, "fast": 2.5}
"""Most F1, in percent, that a named length configuration may lose against `full`."""

_SURE = 0.8
ONE_SIDED = NormalDist().inv_cdf(_SURE)
"""Standard errors between a loss and its upper bound."""


def front(trials: Iterable[Trial]) -> list[Trial]:
    """The trials to which no other is preferable in F1 or latency and at least as good in both, fastest first."""
    ordered = sorted(trials, key=lambda trial: (trial.latency_ms, -trial.f1))
    found: list[Trial] = []
    for trial in ordered:
        if not found or trial.f1 > found[-1].f1 or (trial.f1, trial.latency_ms) == (found[-1].f1, found[-1].latency_ms):
            found.append(trial)
    return found


def most_lost(trial: Trial, full: Trial) -> float:
    """Upper bound of the F1 that `trial` loses against `full`: four resamples of the questions in five lose less."""
    return paired_bootstrap(full.question_f1, trial.question_f1, samples=2_000, level=2 * _SURE - 1)[2]


def choose_named(trials: Iterable[Trial], full: Trial, limits: Mapping[str, float] = NAMED_LIMITS) -> dict[str, Trial]:
    """For each limit the fastest trial that surely loses no more F1 against `full`.

    Args:
        trials: A front, of trials on the questions of `full`.
        full: The trial of the configuration that keeps everything.
        limits: Largest value of `most_lost`, by name.

    Returns:
        Trials by name, in the order of `limits`. Two names may share one. A name is absent if no trial that is
        faster than `full` is within its limit.
    """
    faster = sorted((t for t in trials if t.latency_ms < full.latency_ms), key=lambda trial: trial.latency_ms)
    lost = [most_lost(trial, full) for trial in faster]
    chosen = {}
    for name, limit in limits.items():
        within = [trial for trial, loss in zip(faster, lost, strict=True) if loss <= limit]
        if within:
            chosen[name] = within[0]
    return chosen
