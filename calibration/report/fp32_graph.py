"""A bundle's graph in FP32, to compare INT8 with."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import openvino as ov
from openvino import opset13

from dynamic_tinybert.runtime.encoder.plain_graph import give_float_weights


def fp32_graph(model: ov.Model) -> ov.Model:
    """A copy of a bundle's graph that computes in FP32: activations are not quantised, INT8 weights are dequantised.

    Args:
        model: A graph as the exporter writes it: a quantised `MatMul` reads `FakeQuantize` of the activation, which may
            be multiplied by SmoothQuant's factors first. An FP32 graph is copied unchanged.
    """
    model = model.clone()
    give_float_weights(model)
    for matmul in model.get_ordered_ops():
        if matmul.get_type_name() != "MatMul" or _producer(matmul, 0).get_type_name() != "FakeQuantize":
            continue
        activation = _producer(matmul, 0).input_value(0)
        if activation.get_node().get_type_name() == "Multiply":  # SmoothQuant's factors go back into the weights
            values = _constant(matmul, 1) * _constant(activation.get_node(), 1)
            matmul.input(1).replace_source_output(opset13.constant(values).output(0))
            activation = activation.get_node().input_value(0)
        matmul.input(0).replace_source_output(activation)
    return model


def _producer(node: ov.Node, port: int) -> ov.Node:
    return node.input_value(port).get_node()


def _constant(node: ov.Node, port: int) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = _producer(node, port).get_data()
    return values
