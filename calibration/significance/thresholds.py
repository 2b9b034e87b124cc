"""Thresholds of significance with which layers keep given shares of the tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.calibration.search.schedules import Schedule
from dynamic_tinybert.modeling.scorer import RULE_THRESHOLD
from dynamic_tinybert.runtime.length_config import LengthConfig


class SignificanceSample:
    """The significance that scorers give to the tokens of some windows when nothing is dropped.

    Dropping changes the input of later scorers, so the resulting shares are near those of a schedule, not equal.
    """

    def __init__(
        self, significance: Mapping[int, npt.NDArray[np.float32]], num_layers: int, *, rule_layer: int | None = None
    ) -> None:
        """Keep a sample.

        Args:
            significance: For each layer with a scorer, the significance of every real token, [tokens].
            num_layers: Number of layers of the encoder.
            rule_layer: The layer with the context rule, which every configuration that drops tokens applies; None if
                there is none.
        """
        self._significance = significance
        self._num_layers = num_layers
        self._rule_layer = rule_layer

    @property
    def layers(self) -> Collection[int]:
        """The layers that have a scorer."""
        return self._significance.keys()

    def length_config(self, schedule: Schedule) -> LengthConfig:
        """The configuration whose thresholds make each layer keep its share, in a schedule, of the sample's tokens."""
        alive: npt.NDArray[np.bool_] | None = None
        thresholds: list[float | None] = [None] * self._num_layers
        before = 1.0
        for layer, share in enumerate(schedule.shares):
            if share < before:
                values = self._significance[layer]
                alive = np.ones(len(values), bool) if alive is None else alive
                reached = np.sort(values[alive])[::-1]
                threshold = reached[min(int(share * len(values)), len(reached) - 1)]
                alive &= values >= threshold
                thresholds[layer] = float(threshold)
                before = share
        if self._rule_layer is not None and alive is not None:
            thresholds[self._rule_layer] = RULE_THRESHOLD
        return LengthConfig((1.0,) * self._num_layers, tuple(thresholds))
