"""Students with fewer layers than their teacher: which layers correspond, and how a student is made."""

from __future__ import annotations

from copy import deepcopy

from torch import nn
from transformers import BertPreTrainedModel

from dynamic_tinybert.modeling.tasks.task import encoder_of
from dynamic_tinybert.runtime.common.errors import InvalidInputError


def mapped_layers(deep: int, shallow: int) -> tuple[int, ...]:
    """The layer of a deep encoder that corresponds to each layer of a shallow one: evenly spaced, up to the last."""
    return tuple(round((layer + 1) * deep / shallow) - 1 for layer in range(shallow))


def with_fewer_layers(model: BertPreTrainedModel, num_layers: int) -> BertPreTrainedModel:
    """A copy of a model with only `num_layers` of its layers, evenly spaced: for 3 of 6, the second, fourth and sixth.

    Raises:
        InvalidInputError: The model does not have that many layers.
    """
    deep = model.config.num_hidden_layers
    if not 1 <= num_layers <= deep:
        raise InvalidInputError(f"num_layers is {num_layers}; the model has {deep} layers, so give 1 to {deep}")
    shallow = deepcopy(model)
    encoder = encoder_of(shallow).encoder
    layers = encoder.layer
    encoder.layer = nn.ModuleList([layers[i] for i in mapped_layers(deep, num_layers)])
    shallow.config.num_hidden_layers = num_layers
    return shallow
