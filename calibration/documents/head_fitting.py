"""Fit an early head to a reranker's own final logits, and choose the layer that it reads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.tasks.sequence_classification.competition import lags, needed_margin
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import EarlyHead

from .observed import Observed

RIDGES = (1e-3, 1e-2, 1e-1)
"""Strengths of the ridge penalty that are tried, as shares of the states' mean variance."""


def fit_head(observed: Sequence[Observed], layers: int, ridge: float) -> EarlyHead:
    """The ridge regression from the state of [CLS] after some layers to the final logit, window by window.

    Args:
        observed: Queries to fit on.
        layers: Number of layers before the head.
        ridge: Strength of the penalty.
    """
    states = np.concatenate([own.states[layers] for own in observed]).astype(np.float64)
    logits = np.concatenate([own.logits for own in observed]).astype(np.float64)
    mean, target = states.mean(0), logits.mean()
    states -= mean
    covariance = states.T @ states / len(states)
    penalty = ridge * float(np.trace(covariance)) / len(covariance) * np.eye(len(covariance))
    weight = np.linalg.solve(covariance + penalty, states.T @ (logits - target) / len(states))
    return EarlyHead(layers, weight.astype(np.float32), float(target - mean @ weight), {}, {})


def choose_head(
    fitting: Sequence[Observed], choosing: Sequence[Observed], places: int, risk: float
) -> tuple[int, float]:
    """The number of layers and the strength of the penalty with which a query costs least.

    Args:
        fitting: Queries to fit the candidates on.
        choosing: Queries to compare them on, at the margin that changes at most a share `risk` of these.
        places: Number of first places that must stay.
        risk: The share.
    """
    costs = {}
    for layers in fitting[0].states:
        for ridge in RIDGES:
            head = fit_head(fitting, layers, ridge)
            needed = [needed_margin(own.early(head), own.final, places) for own in choosing]
            margin = sorted(needed, reverse=True)[math.floor(risk * len(needed))]
            costs[layers, ridge] = float(np.mean([macs_share(own, head, places, margin) for own in choosing]))
    return min(costs, key=lambda candidate: costs[candidate])


def kept(observed: Observed, head: EarlyHead, places: int, margin: float) -> npt.NDArray[np.bool_]:
    """Which documents of a query get their final scores, bool [n]."""
    stay: npt.NDArray[np.bool_] = lags(observed.early(head), observed.final, places) <= margin
    return stay


def macs_share(observed: Observed, head: EarlyHead, places: int, margin: float) -> float:
    """The multiply-accumulates of a query, as a share of those without dropping."""
    before, every = observed.macs[head.layers - 1], observed.macs[-1]
    executed = before.sum() + (every - before)[kept(observed, head, places, margin)].sum()
    return float(executed / every.sum())
