"""Fit an early head to a reranker's own final logits, and choose the layer that it reads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from dynamic_tinybert.runtime.tasks.sequence_classification.competition import lags
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import EarlyHead

from .lost_relevance import Relevance, smallest_margin
from .observed import Observed

PENALTY = 1e-2
"""Weight of the squared norm of the weights, for inputs of unit variance."""

FOLDS = 3
"""Parts of the queries of which one at a time is left out, to compare heads."""

_STEPS = 200  # of L-BFGS; it converges before


def fit_head(observed: Sequence[Observed], layers: int) -> EarlyHead:
    """Logistic regression of the model's own probabilities, window by window, without margins.

    It sees the difference between relevant and irrelevant documents, not that between irrelevant ones.

    Args:
        observed: Queries to fit on.
        layers: Number of layers before the head; 0 for the match of words alone.
    """
    inputs = np.concatenate([_inputs(own, layers) for own in observed])
    targets = expit(np.concatenate([own.logits for own in observed]).astype(np.float64))
    centre = inputs.mean(0)
    scale = np.maximum(inputs.std(0), 1e-9)
    inputs = (inputs - centre) / scale

    def loss(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights, bias = parameters[:-1], parameters[-1]
        logits = inputs @ weights + bias
        errors = (expit(logits) - targets) / len(targets)
        value = (np.logaddexp(0, logits) - targets * logits).mean() + PENALTY * (weights @ weights) / 2
        return float(value), np.append(inputs.T @ errors + PENALTY * weights, errors.sum())

    mean = float(np.clip(targets.mean(), 1e-6, 1 - 1e-6))
    start = np.append(np.zeros(inputs.shape[1]), math.log(mean / (1 - mean)))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x
    weights = found[:-1] / scale
    bias = float(found[-1] - centre @ weights)
    return EarlyHead(layers, float(weights[0]), weights[1:].astype(np.float32), bias, {}, 0.0, {})


def choose_layers(observed: Sequence[Observed], groups: Sequence[str], places: int, risk: float) -> int:
    """The number of layers before a head with which a query costs least.

    Each query is scored by heads that were fitted without its part of the groups, at the margin that loses at most
    `risk` of the relevance over all queries.

    Args:
        observed: Queries to fit on.
        groups: The group of each; with fewer than `FOLDS` different ones, queries are dealt without regard to them.
        places: Number of first places that count.
        risk: The largest mean loss.
    """
    names = list(dict.fromkeys(groups))
    part = {name: number % FOLDS for number, name in enumerate(names)}
    parts = [part[name] if len(names) >= FOLDS else number % FOLDS for number, name in enumerate(groups)]
    costs: dict[int, float] = {}
    for layers in (0, *observed[0].states):
        heads = [
            fit_head([own for own, at in zip(observed, parts, strict=True) if at != left_out], layers)
            for left_out in range(FOLDS)
        ]
        scored = [(own, heads[at]) for own, at in zip(observed, parts, strict=True) if len(own.final) > places]
        behind = [lags(own.early(head), places) for own, head in scored]
        margin = smallest_margin(behind, [Relevance.of(own, places) for own, _ in scored], risk)
        costs[layers] = float(
            np.mean([macs_share(own, layers, kept(own, head, places, margin)) for own, head in scored])
        )
    return min(costs, key=lambda layers: costs[layers])


def margin_of(observed: Sequence[Observed], head: EarlyHead, places: int, mean: float) -> float:
    """The smallest margin with which queries lose at most `mean` of the relevance in their first places on average."""
    behind = [lags(own.early(head), places) for own in observed]
    return smallest_margin(behind, [Relevance.of(own, places) for own in observed], mean)


def kept(observed: Observed, head: EarlyHead, places: int, margin: float) -> npt.NDArray[np.bool_]:
    """Which documents of a query get their final scores, bool [n]."""
    stay: npt.NDArray[np.bool_] = lags(observed.early(head), places) <= margin
    return stay


def macs_share(observed: Observed, layers: int, stay: npt.NDArray[np.bool_]) -> float:
    """The multiply-accumulates of a query of which some documents stay, bool [n], after so many layers of all.

    They are a share of those without dropping.
    """
    every = observed.macs[-1]
    before = observed.macs[layers - 1] if layers else np.zeros_like(every)
    executed = before.sum() + (every - before)[stay].sum()
    return float(executed / every.sum())


def _inputs(observed: Observed, layers: int) -> npt.NDArray[np.float64]:
    """What a head reads of each window: the match of words, then the state; float64 [w, 1 + H] or [w, 1]."""
    match = observed.match[:, None].astype(np.float64)
    return np.hstack([match, observed.states[layers].astype(np.float64)]) if layers else match
