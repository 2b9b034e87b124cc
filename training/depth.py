"""Which layers of a deep encoder stand for those of a shallow one."""

from __future__ import annotations

from copy import deepcopy

from torch import nn
from transformers import BertForQuestionAnswering

from dynamic_tinybert.runtime.common.errors import InvalidInputError


def mapped_layers(deep: int, shallow: int) -> tuple[int, ...]:
    """For each layer of a shallow encoder the layer of a deep one that it stands for, evenly, the last for the last."""
    return tuple(round((layer + 1) * deep / shallow) - 1 for layer in range(shallow))


def with_fewer_layers(model: BertForQuestionAnswering, num_layers: int) -> BertForQuestionAnswering:
    """A copy of a model with some of its layers, evenly chosen: of six with three, the second, fourth and sixth.

    Raises:
        InvalidInputError: The model has not as many layers.
    """
    deep = model.config.num_hidden_layers
    if not 1 <= num_layers <= deep:
        raise InvalidInputError(f"num_layers is {num_layers}; the model has {deep} layers, so give 1 to {deep}")
    shallow = deepcopy(model)
    layers = shallow.bert.encoder.layer
    shallow.bert.encoder.layer = nn.ModuleList([layers[i] for i in mapped_layers(deep, num_layers)])
    shallow.config.num_hidden_layers = num_layers
    return shallow
