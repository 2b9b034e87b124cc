"""Predict how long a request takes from the lengths that its layers execute. `latency_fitting` fits the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.encoder.compilation import LENGTH_MULTIPLE
from dynamic_tinybert.runtime.length_config import LengthConfig

Milliseconds = npt.NDArray[np.float64]
Lengths = npt.NDArray[np.int64]

TERMS = (
    "call",
    "layer_row",  # of layers that keep everything
    "layer_square",
    "selection",
    "selection_row",  # of layers that select: rows that enter
    "selection_square",
    "selection_kept_row",
)


@dataclass(frozen=True)
class LatencyModel:
    """Predicts the time of a request with one window, as a sum over the layers.

    Attributes:
        coefficients: Milliseconds of each of `TERMS`, none negative: `call` of a request; `layer_row` and
            `layer_square` of each row and each pair of rows in layers that keep everything; `selection` of a layer that
            selects, `selection_row` and `selection_square` of the rows that enter it, and `selection_kept_row` of those
            that it passes on. Rows are tokens; those of the input include padding. In graphs that are not fused, the
            padding of kept rows is not modelled.
        median_error: Expected relative error for a configuration that was not measured: the median, over the
            configurations that this was fitted on, of the error of its mean time when it is left out of the fit.
    """

    coefficients: Mapping[str, float]
    median_error: float

    def __post_init__(self) -> None:
        if self.coefficients.keys() != set(TERMS):
            raise InvalidInputError(
                f"a latency model has the coefficients {sorted(TERMS)}, not {sorted(self.coefficients)}; "
                "measure this machine again"
            )

    def predict(self, config: LengthConfig, lengths: npt.ArrayLike, kept: npt.ArrayLike) -> Milliseconds:
        """Time of each window at a configuration, float64 [W] in milliseconds.

        Args:
            config: The configuration, which decides which layers select.
            lengths: Real tokens of each window, int [W].
            kept: Tokens that each layer passed on, int [W, num_layers].

        Raises:
            LengthConfigError: `config` has another number of layers than `kept`.
        """
        ms: Milliseconds = terms_of(config, lengths, kept) @ [self.coefficients[term] for term in TERMS]
        return ms

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LatencyModel:
        """Make the model from the result of `to_dict`.

        Raises:
            InvalidInputError: The values come from a release whose model has other terms.
        """
        return cls(dict(values["coefficients"]), float(values["median_error"]))


def padded_lengths(lengths: npt.ArrayLike) -> Lengths:
    """Lengths after the runtime padded them."""
    return -(-np.asarray(lengths) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def terms_of(config: LengthConfig, lengths: npt.ArrayLike, kept: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """How often each of `TERMS` occurs in each window, [W, terms]."""
    kept = np.asarray(kept)
    config.check_layers(kept.shape[1])
    rows = padded_lengths(lengths)
    terms = np.zeros((len(rows), len(TERMS)))
    column = dict(zip(TERMS, terms.T, strict=True))
    column["call"] += 1
    for layer in range(kept.shape[1]):
        if layer in config.selecting_layers:
            column["selection"] += 1
            column["selection_row"] += rows
            column["selection_square"] += rows**2
            rows = kept[:, layer]
            column["selection_kept_row"] += rows
        else:
            column["layer_row"] += rows
            column["layer_square"] += rows**2
    return terms
