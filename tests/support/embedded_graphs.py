"""Graphs of the embedded bundle."""

from __future__ import annotations

from collections import Counter
from functools import cache

import openvino as ov

from dynamic_tinybert.runtime import LengthAdaptiveModel


@cache
def embedded() -> LengthAdaptiveModel:
    """The model of the embedded bundle."""
    return LengthAdaptiveModel.from_pretrained()


def types(model: ov.Model) -> Counter[str]:
    """How often each type of node is in a graph."""
    return Counter(node.get_type_name() for node in model.get_ordered_ops())
