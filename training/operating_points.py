"""Length configurations that a step drops by, sampled where calibrations choose theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dynamic_tinybert.calibration.schedules import Schedule
from dynamic_tinybert.calibration.thresholds import SignificanceSample
from dynamic_tinybert.export.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.runtime.length_config import LengthConfig

from .batches import Batch
from .objective import Moment

_SELECTS = 0.6  # chance of a layer with a scorer: each selection takes time, so that few layers select when deployed
_LAST_SHARES = (0.13, 0.5)  # a tenth is the question; configurations that calibrations choose keep a third or less


def draw_configs(
    reference: ReferenceModel, full: ReferenceOutput, batch: Batch, moment: Moment, count: int
) -> Iterator[LengthConfig]:
    """Some configurations for a batch.

    Their thresholds are those that keep the wanted shares of the batch, which is how calibration finds them, so that
    some windows keep more than others.

    Args:
        reference: The model as it will be deployed.
        full: What it gives for the batch when it keeps everything, but asks its scorers.
        batch: The windows.
        moment: Decides what is drawn.
        count: How many to draw.
    """
    num_layers, rule_layer = reference.model.config.num_hidden_layers, reference.rule_layer
    real = batch["attention_mask"].bool()
    significance = {layer: values.detach()[real].float().cpu().numpy() for layer, values in full.significance.items()}
    sample = SignificanceSample(significance, num_layers, rule_layer=rule_layer)
    random = np.random.default_rng([moment.seed, moment.step])
    for _ in range(count):
        yield sample.length_config(draw_schedule(num_layers, list(significance), random))


def draw_schedule(num_layers: int, layers: Sequence[int], random: np.random.Generator) -> Schedule:
    """A schedule in which some of the layers select, down to a share from 0.13 to 0.5 whose logarithm is uniform."""
    selecting = [layer for layer in sorted(layers) if random.random() < _SELECTS] or [max(layers)]
    lowest, highest = np.log(_LAST_SHARES)
    falls = random.uniform(lowest, highest) * random.dirichlet(np.full(len(selecting), 2.0)).cumsum()
    return Schedule.of_layers(num_layers, dict(zip(selecting, np.exp(falls).tolist(), strict=True)))
