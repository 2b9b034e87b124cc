"""LengthDrop of the Length-Adaptive Transformer, with keep ratios relative to the real length."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import BertPreTrainedModel

from dynamic_tinybert.modeling.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.training.batches import TokenBatch, inputs_of

from .base import Objective, TrainingStep, Unregistered

_RATIO_BOUND = 0.2  # largest share that a layer drops of the tokens that enter it
_RANDOM = 2  # random configurations per step, besides the smallest one


class LengthDrop(Objective):
    """The sandwich rule: `full` learns the labels and teaches the smallest and some random configurations.

    Tokens are dropped by the attention that they receive.

    Args:
        model: The model.
        layer_dropout: Probability with which each layer is left out of a random configuration.
    """

    def __init__(self, model: BertPreTrainedModel, *, layer_dropout: float) -> None:
        super().__init__(model)
        self._layer_dropout = layer_dropout
        self._reference = Unregistered(ReferenceModel(model))  # its weights are the model's

    def forward(self, batch: TokenBatch, step: TrainingStep) -> dict[str, Tensor]:
        """Parts `answers` and `dropped`."""
        reference = self._reference.module
        num_layers = self.model.config.num_hidden_layers
        inputs = inputs_of(batch)
        full: ReferenceOutput = reference(**inputs, length_config=LengthConfig.full(num_layers))
        random = np.random.default_rng([step.seed, step.index])
        dropped = [
            reference(**inputs, length_config=_falling(np.full(num_layers, _RATIO_BOUND))),
            *(
                reference(
                    **inputs,
                    length_config=_falling(random.uniform(0, _RATIO_BOUND, num_layers)),
                    skipped_layers=np.flatnonzero(random.random(num_layers) < self._layer_dropout).tolist(),
                )
                for _ in range(_RANDOM)
            ),
        ]
        targets = self.task.probabilities(full.outputs, batch)
        soft = torch.stack([self.task.soft_loss(output.outputs, targets, batch) for output in dropped])
        return {"answers": self.task.loss(full.outputs, batch), "dropped": soft.mean()}


def _falling(dropped: np.ndarray) -> LengthConfig:
    """The configuration whose layers drop these shares of the tokens that enter them."""
    return LengthConfig(tuple((1 - dropped).cumprod().tolist()))
