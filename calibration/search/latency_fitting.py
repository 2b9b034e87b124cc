"""Fit the latency model to measured times."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from dynamic_tinybert.runtime.common.errors import InvalidInputError

from .latency import LatencyTable
from .latency_model import TERMS, LatencyModel, Milliseconds, terms_of


def fit_latency_model(table: LatencyTable) -> LatencyModel:
    """Fit a model that predicts other configurations, by least squares of the relative errors.

    Args:
        table: Times of at least two configurations, better of a dozen that differ widely: from none to all layers
            selecting, with thresholds if the configurations to predict have them; on windows from `spread_by_length`.

    Raises:
        InvalidInputError: There are fewer than two configurations.
    """
    count = len(table.configs)
    if count < 2:
        raise InvalidInputError(f"a latency model needs at least 2 measured configurations, not {count}")
    terms = np.stack([terms_of(c, table.lengths, kept) for c, kept in zip(table.configs, table.kept, strict=True)])
    errors = []
    for i in range(count):
        others = np.arange(count) != i
        predicted = terms[i] @ _solve(terms[others], table.ms[others])
        errors.append(abs(predicted.mean() / table.ms[i].mean() - 1))
    coefficients = _solve(terms, table.ms)
    return LatencyModel(dict(zip(TERMS, coefficients.tolist(), strict=True)), float(np.median(errors)))


def _solve(terms: npt.NDArray[np.float64], ms: Milliseconds) -> npt.NDArray[np.float64]:
    """Non-negative coefficients [terms] that fit `terms` [..., W, terms] to `ms` [..., W]."""
    relative = (terms / ms[..., None]).reshape(-1, terms.shape[-1])
    scale = np.linalg.norm(relative, axis=0)
    scale[scale == 0] = 1  # no configuration has this term
    solution, _ = nnls(relative / scale, np.ones(len(relative)))
    return np.asarray(solution / scale)
