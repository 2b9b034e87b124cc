"""LengthDrop of the Length-Adaptive Transformer, with ratios of the real length."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import BertForQuestionAnswering

from dynamic_tinybert.modeling.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.training.batches import Batch, inputs_of

from .answer_losses import answer_loss, soft_answer_loss
from .base import Moment, Objective

_RATIO_BOUND = 0.2  # a layer drops at most this part of what enters it
_RANDOM = 2  # configurations of a step, beside the smallest


class LengthDrop(Objective):
    """Sandwich rule: the answers of `full`, which teaches the smallest and some random configurations.

    Tokens go by the attention that they receive.

    Args:
        model: The model.
        layer_dropout: Chance of each layer to be left out of a random configuration.
    """

    def __init__(self, model: BertForQuestionAnswering, *, layer_dropout: float) -> None:
        super().__init__(model)
        self._layer_dropout = layer_dropout
        self._shared = (ReferenceModel(model),)  # in a tuple, so that its weights are not counted twice

    def forward(self, batch: Batch, moment: Moment) -> dict[str, Tensor]:
        """Parts `answers` and `dropped`."""
        (reference,) = self._shared
        num_layers = self.model.config.num_hidden_layers
        inputs = inputs_of(batch)
        full: ReferenceOutput = reference(**inputs, length_config=LengthConfig.full(num_layers))
        random = np.random.default_rng([moment.seed, moment.step])
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
        soft = torch.stack([soft_answer_loss(output, full, batch) for output in dropped])
        return {"answers": answer_loss(full, batch), "dropped": soft.mean()}


def _falling(dropped: np.ndarray) -> LengthConfig:
    """Ratios of layers that drop these parts of what enters them."""
    return LengthConfig(tuple((1 - dropped).cumprod().tolist()))
