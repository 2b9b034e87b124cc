"""Which configurations are worth measuring on more examples: those that may become the fastest within a limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import NormalDist, fmean

from .candidate_runs import Outcome
from .surrogate import Values

_LEAST_GAIN = 0.001  # of the latency of `full`, on average
_LEAST_ERROR = 0.1  # of an expected loss, in points
_NEAREST = 5  # configurations that the loss to aim at is estimated from


def contenders(outcomes: Sequence[Outcome], expected: Values, limits: Iterable[float]) -> list[Outcome]:
    """For each limit the configuration whose further measurement is expected to gain most, if that is worth it.

    The gain of a configuration is the latency by which it is faster than the fastest one that is known to be within the
    limit, times the probability that it will be within the limit, too: constrained expected improvement (Gardner et
    al., Bayesian Optimization with Inequality Constraints, 2014).

    Args:
        outcomes: What was measured so far.
        expected: The loss that each of them is expected to have given all measurements, [outcomes].
        limits: Largest upper bounds of a loss.

    Returns:
        At most one for each limit, none twice; all are unfinished and hopeful.
    """
    chosen: dict[int, Outcome] = {}
    for limit in limits:
        fastest = min(
            (
                outcome.latency
                for outcome, loss in zip(outcomes, expected, strict=True)
                if outcome.finished and loss + outcome.margin <= limit
            ),
            default=1.0,
        )
        gains = {
            i: (fastest - outcome.latency) * _chance(outcome, float(expected[i]), limit)
            for i, outcome in enumerate(outcomes)
            if outcome.measured < 1 and not outcome.rejected and i not in chosen
        }
        best = max(gains, key=lambda i: gains[i], default=None)
        if best is not None and gains[best] >= _LEAST_GAIN:
            chosen[best] = outcomes[best]
    return list(chosen.values())


def loss_to_aim_at(limit: float, outcomes: Sequence[Outcome]) -> float:
    """The mean loss of configurations whose upper bound is at the limit, from those whose bound is nearest to it."""
    hopeful = [outcome for outcome in outcomes if not outcome.rejected]
    nearest = sorted(hopeful, key=lambda outcome: abs(outcome.loss.mean + outcome.margin - limit))[:_NEAREST]
    return limit - fmean(outcome.margin for outcome in nearest) if nearest else limit / 2


def _chance(outcome: Outcome, expected: float, limit: float) -> float:
    """Probability that the upper bound of the loss will be within the limit, once all examples were run."""
    error = max(outcome.loss.error, _LEAST_ERROR)
    return NormalDist().cdf((limit - outcome.margin - expected) / error)
