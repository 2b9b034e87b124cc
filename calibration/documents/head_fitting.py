"""Fit an early head to a reranker's own final logits, and choose the layer that it reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.tasks.sequence_classification.competition import lags, needed_margin
from dynamic_tinybert.runtime.tasks.sequence_classification.early_heads import EarlyHead

from .observed import Observed

RIDGES = (1e-3, 1e-2, 1e-1)
"""Strengths of the ridge penalty that are tried, as shares of the states' mean variance."""

FOCUSES = (math.inf, 2.0, 0.5)
"""Widths of the region around the last place that counts that are tried."""


@dataclass(frozen=True)
class HeadChoice:
    """How a head is fitted.

    Attributes:
        layers: Number of layers before the head.
        ridge: Strength of the penalty.
        focus: How far from the logit in the last place that counts a window has half the weight in the regression, in
            medians of this distance; infinite for equal weights. Of documents far above or below, it does not matter
            how far.
    """

    layers: int
    ridge: float
    focus: float


def fit_head(observed: Sequence[Observed], choice: HeadChoice, places: int) -> EarlyHead:
    """The weighted ridge regression from the state of [CLS] to the final logit, window by window.

    Args:
        observed: Queries to fit on.
        choice: How.
        places: Number of first places that count.
    """
    states = np.concatenate([own.states[choice.layers] for own in observed]).astype(np.float64)
    logits = np.concatenate([own.logits for own in observed]).astype(np.float64)
    bars = np.repeat([_bar(own, places) for own in observed], [len(own.logits) for own in observed])
    distances = np.abs(logits - bars)
    weights = 1 / (1 + (distances / (choice.focus * (np.median(distances) or 1))) ** 2)
    weights /= weights.sum()
    mean, target = weights @ states, weights @ logits
    states -= mean
    weighted = states * weights[:, None]
    covariance = weighted.T @ states
    penalty = choice.ridge * float(np.trace(covariance)) / len(covariance) * np.eye(len(covariance))
    weight = np.linalg.lstsq(covariance + penalty, weighted.T @ (logits - target), rcond=None)[0]
    return EarlyHead(choice.layers, weight.astype(np.float32), float(target - mean @ weight), {}, {})


def choose_head(fitting: Sequence[Observed], choosing: Sequence[Observed], places: int, risk: float) -> HeadChoice:
    """The way of fitting with which a query costs least.

    Args:
        fitting: Queries to fit the candidates on.
        choosing: Queries to compare them on, at the margin that changes at most a share `risk` of these.
        places: Number of first places that must stay.
        risk: The share.
    """
    costs: dict[HeadChoice, float] = {}
    for layers in fitting[0].states:
        for ridge in RIDGES:
            for focus in FOCUSES:
                choice = HeadChoice(layers, ridge, focus)
                head = fit_head(fitting, choice, places)
                needed = [needed_margin(own.early(head), own.final, places) for own in choosing]
                margin = sorted(needed, reverse=True)[math.floor(risk * len(needed))]
                costs[choice] = float(np.mean([macs_share(own, head, places, margin) for own in choosing]))
    return min(costs, key=lambda choice: costs[choice])


def kept(observed: Observed, head: EarlyHead, places: int, margin: float) -> npt.NDArray[np.bool_]:
    """Which documents of a query get their final scores, bool [n]."""
    stay: npt.NDArray[np.bool_] = lags(observed.early(head), observed.final, places) <= margin
    return stay


def macs_share(observed: Observed, head: EarlyHead, places: int, margin: float) -> float:
    """The multiply-accumulates of a query, as a share of those without dropping."""
    before, every = observed.macs[head.layers - 1], observed.macs[-1]
    executed = before.sum() + (every - before)[kept(observed, head, places, margin)].sum()
    return float(executed / every.sum())


def _bar(observed: Observed, places: int) -> float:
    """The final logit in the last place that counts."""
    return float(np.sort(observed.final)[::-1][:places][-1])
