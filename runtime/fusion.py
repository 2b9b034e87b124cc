"""Fewer nodes between the matrix products of a graph: each costs OpenVINO microseconds, whatever it computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from .named_nodes import NamedNodes
from .ops import attention, residual_layer_norm

Array = npt.NDArray[Any]


def projections(nodes: NamedNodes, layer: int, value_factors: Array | None = None) -> ov.Output:
    """Query, key and value of a layer side by side, float32 [B, L, 3 H], from one matrix product if that can be.

    Args:
        nodes: NamedNodes by name.
        layer: Its number.
        value_factors: What the columns of the values are multiplied by, [H].
    """
    biased = [nodes[f"layer.{layer}.{part}"] for part in ("query", "key", "value")]
    factors = np.ones(1, np.float32) if value_factors is None else value_factors
    products = [_Product.of(node) for node in biased]
    alike = {None if product is None else product.likeness for product in products}
    if None in alike or len(alike) > 1:
        *others, value = (node.output(0) for node in biased)
        return ops.concat([*others, ops.multiply(value, factors).output(0)], 2).output(0)
    query, key, value = (product for product in products if product is not None)
    return _Product.joined([query, key, value.scaled(factors)]).output()


def fuse(model: ov.Model, *, num_layers: int, num_heads: int) -> None:
    """Rewrite an INT8 graph in place: attention and what surrounds the residuals become one op each.

    Attention multiplies integers and gives its context in 8 bits, query, key and value come from one product, and a
    residual is added, normalised and quantised at once. What is not as the exporter writes it stays as it is.

    Args:
        model: A bundle's graph, tokens being selected in it or not.
        num_layers: Layers of the encoder.
        num_heads: Attention heads.

    Raises:
        BundleFormatError: A node is not in the graph.
    """
    nodes = NamedNodes(model)
    for layer in range(num_layers):
        if f"layer.{layer}.attention" in nodes:  # a layer that selects by attention has an op already
            _fuse_attention(nodes, layer, num_heads)
        for name in (f"layer.{layer}.attention.output", f"layer.{layer}.output"):
            _fuse_layer_norm(nodes[name])
    model.validate_nodes_and_infer_types()


def _fuse_attention(nodes: NamedNodes, layer: int, num_heads: int) -> None:
    mask_over_heads = _producers(nodes[f"layer.{layer}.attention"])[3]
    mask = mask_over_heads.input_value(0)
    context = nodes[f"layer.{layer}.context"].output(0)
    quantizer = _only_quantizer(context)
    if quantizer is None or len(context.get_target_inputs()) > 1:
        _replace(context, attention(projections(nodes, layer), mask, num_heads, int16=True))
        return
    quantized = attention(
        projections(nodes, layer, quantizer.smoothing),
        mask,
        num_heads,
        int16=True,
        units=1 / quantizer.scale,
        zero_point=quantizer.zero_point,
    )
    quantizer.give(quantized)


def _fuse_layer_norm(output: ov.Node) -> None:
    if _kinds(output) != ["Multiply", "Constant"]:
        return
    scaled, beta = _producers(output)
    if _kinds(scaled) != ["MVN", "Constant"]:
        return
    normal, gamma = _producers(scaled)
    total = _producers(normal)[0]
    if total.get_type_name() != "Add":
        return
    scales = [gamma.data.ravel(), beta.data.ravel()]
    quantizer = _only_quantizer(output.output(0))
    if quantizer is not None:
        smoothing = np.float32(1) if quantizer.smoothing is None else quantizer.smoothing.ravel()
        scales.append(np.broadcast_to(smoothing / np.float32(quantizer.scale), scales[0].shape))
    first, second = total.input_values()
    fused = residual_layer_norm(
        first,
        second,
        ops.constant(np.stack(scales).astype(np.float32)).output(0),
        epsilon=normal.get_attributes()["eps"],
        zero_point=0 if quantizer is None else quantizer.zero_point,
    )
    if quantizer is not None:
        quantizer.give(fused.output(1))
    _replace(output.output(0), fused.output(0))
    fused.set_friendly_name(output.get_friendly_name())


@dataclass(frozen=True)
class _Product:
    """source * weight, transposed, + bias. The weight is [N, K], in INT8 with a scale for each row, [N, 1]."""

    source: ov.Output
    weight: Array
    scale: Array | None
    bias: Array

    @classmethod
    def of(cls, node: ov.Node) -> _Product | None:
        """What a node computes, if it is of this form."""
        if _kinds(node) != ["MatMul", "Constant"]:
            return None
        product, bias = _producers(node)
        weight, scale = _producers(product)[1], None
        if _kinds(weight) == ["Convert", "Constant"]:
            convert, scales = _producers(weight)
            weight, scale = _producers(convert)[0], scales.data
        if weight.get_type_name() != "Constant":
            return None
        return cls(product.input_value(0), weight.data, scale, bias.data)

    @classmethod
    def joined(cls, products: Sequence[_Product]) -> _Product:
        """One product whose columns are theirs, side by side; they must be alike."""
        scales = [product.scale for product in products if product.scale is not None]
        return cls(
            products[0].source,
            np.concatenate([product.weight for product in products]),
            np.concatenate(scales) if scales else None,
            np.concatenate([product.bias for product in products], axis=-1),
        )

    @property
    def likeness(self) -> tuple[object, ...]:
        """Products that agree in it can be joined."""
        return self.source.get_node().get_friendly_name(), self.source.get_index(), self.weight.dtype

    def scaled(self, factors: Array) -> _Product:
        """With its columns multiplied by factors, [N] or one for all."""
        rows = np.reshape(factors, (-1, 1))
        if self.scale is None:
            return replace(self, weight=self.weight * rows, bias=self.bias * factors)
        return replace(self, scale=self.scale * rows, bias=self.bias * factors)

    def output(self) -> ov.Output:
        """It as nodes."""
        weight = ops.constant(self.weight)
        if self.scale is not None:
            weight = ops.multiply(ops.convert(weight, np.float32), self.scale)
        return ops.add(ops.matmul(self.source, weight, False, True), self.bias).output(0)


@dataclass(frozen=True)
class _Quantizer:
    """A FakeQuantize to 256 levels, and the factors that what it quantises is multiplied by before."""

    node: ov.Node
    smoothing: Array | None
    scale: float
    zero_point: float

    @classmethod
    def at(cls, target: ov.Input) -> _Quantizer | None:
        """The one that a node's input leads to."""
        node, smoothing = target.get_node(), None
        if node.get_type_name() == "Multiply":
            factors = _producers(node)[1 - target.get_index()]
            consumers = node.output(0).get_target_inputs()
            if factors.get_type_name() != "Constant" or len(consumers) != 1:
                return None
            node, smoothing = next(iter(consumers)).get_node(), factors.data
        if node.get_type_name() != "FakeQuantize":
            return None
        low, high = (float(producer.data.item()) for producer in _producers(node)[1:3])
        scale = (high - low) / 255
        return cls(node, smoothing, scale, round(-low / scale))

    def give(self, quantized: ov.Output) -> None:
        """Put what is quantised already, uint8 [B, L, H], in its place."""
        units = ops.subtract(ops.convert(quantized, np.float32), np.float32(self.zero_point))
        _replace(self.node.output(0), ops.multiply(units, np.float32(self.scale)).output(0))


def _only_quantizer(output: ov.Output) -> _Quantizer | None:
    found = [q for target in output.get_target_inputs() if (q := _Quantizer.at(target)) is not None]
    return found[0] if len(found) == 1 else None


def _replace(output: ov.Output, by: ov.Output) -> None:
    for target in output.get_target_inputs():
        target.replace_source_output(by)


def _producers(node: ov.Node) -> list[ov.Node]:
    return [value.get_node() for value in node.input_values()]


def _kinds(node: ov.Node) -> list[str]:
    return [producer.get_type_name() for producer in _producers(node)]
