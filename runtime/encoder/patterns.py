"""Recognise groups of nodes that the exporter writes: linear layers, LayerNorm, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from .graph_walk import producer_types, producers

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Product:
    """A linear layer: source * weight^T + bias.

    Attributes:
        source: Input of the layer, [B, L, K].
        weight: [N, K], floats or, with `scale`, int8.
        scale: Scale of each row of an int8 weight, [N, 1].
        bias: N numbers.
    """

    source: ov.Output
    weight: Array
    scale: Array | None
    bias: Array

    @classmethod
    def of(cls, node: ov.Node) -> Product | None:
        """Recognise a linear layer by its last node, the addition of the bias; None for anything else."""
        if node.get_type_name() != "Add" or producer_types(node) != ["MatMul", "Constant"]:
            return None
        product, bias = producers(node)
        weight, scale = producers(product)[1], None
        if producer_types(weight) == ["Convert", "Constant"]:
            convert, scales = producers(weight)
            weight, scale = producers(convert)[0], scales.data
        if weight.get_type_name() != "Constant":
            return None
        return cls(product.input_value(0), weight.data, scale, bias.data)

    @classmethod
    def joined(cls, products: Sequence[Product]) -> Product:
        """One product that computes several side by side; they must have the same `join_key`."""
        scales = [product.scale for product in products if product.scale is not None]
        return cls(
            products[0].source,
            np.concatenate([product.weight for product in products]),
            np.concatenate(scales) if scales else None,
            np.concatenate([product.bias for product in products], axis=-1),
        )

    @property
    def join_key(self) -> tuple[object, ...]:
        """Products with the same key can be joined: they have the same source and type of weights."""
        return self.source.get_node().get_friendly_name(), self.source.get_index(), self.weight.dtype

    def scaled(self, factors: Array) -> Product:
        """The same product with its output columns multiplied by factors, [N], or by a single one."""
        rows = np.reshape(factors, (-1, 1))
        if self.scale is None:
            return replace(self, weight=self.weight * rows, bias=self.bias * factors)
        return replace(self, scale=self.scale * rows, bias=self.bias * factors)

    def output(self) -> ov.Output:
        """Build the equivalent nodes."""
        weight = ops.constant(self.weight)
        if self.scale is not None:
            weight = ops.multiply(ops.convert(weight, np.float32), self.scale)
        return ops.add(ops.matmul(self.source, weight, False, True), self.bias).output(0)


@dataclass(frozen=True)
class Normalization:
    """LayerNorm: (total - mean) / sqrt(variance + epsilon) * gamma + beta, over the last of three axes.

    Attributes:
        total: The node whose output is normalised, an addition.
        gamma: H numbers.
        beta: H numbers.
        epsilon: Added to the variance.
    """

    total: ov.Node
    gamma: Array
    beta: Array
    epsilon: float

    @classmethod
    def of(cls, node: ov.Node) -> Normalization | None:
        """Recognise LayerNorm by its last node, the addition of beta; None for anything else."""
        if node.get_type_name() != "Add" or producer_types(node) != ["Multiply", "Constant"]:
            return None
        scaled, beta = producers(node)
        if producer_types(scaled) != ["MVN", "Constant"]:
            return None
        normal, gamma = producers(scaled)
        total, axes = producers(normal)
        if producer_types(normal) != ["Add", "Constant"] or axes.data.tolist() != [-1]:
            return None
        return cls(total, gamma.data.ravel(), beta.data.ravel(), normal.get_attributes()["eps"])


@dataclass(frozen=True)
class Embeddings:
    """BERT's embeddings before LayerNorm: words[ids] * scales[ids] + segments[types] + positions[:L].

    Attributes:
        ids: Word ids, [B, L].
        types: Segment of each token, [B, L].
        words: Constant with the quantised word embeddings, int8 [V, H].
        scales: Scale of each word, [V, 1].
        segments: [T, H].
        positions: [P, H].
    """

    ids: ov.Output
    types: ov.Output
    words: ov.Node
    scales: Array
    segments: Array
    positions: Array

    @classmethod
    def of(cls, node: ov.Node) -> Embeddings | None:
        """Recognise embeddings by their last node, the addition of the positions; None for anything else."""
        if node.get_type_name() != "Add" or producer_types(node) != ["Add", "Slice"]:
            return None
        words_and_segments, first = producers(node)
        if producer_types(words_and_segments) != ["Multiply", "Gather"]:
            return None
        scaled, segment = producers(words_and_segments)
        if producer_types(scaled) != ["Convert", "Gather"]:
            return None
        converted, scale = producers(scaled)
        word = producers(converted)[0]
        if not all(_is_row_of_table(gather) for gather in (word, scale, segment)):
            return None
        ids, types = word.input_value(1), segment.input_value(1)
        words, scales, segments = (producers(gather)[0] for gather in (word, scale, segment))
        if (
            words.get_output_element_type(0) != ov.Type.i8
            or scale.input_value(1) != ids
            or scales.data.shape != (len(words.data), 1)
            or not _is_first_rows(first, ids)
        ):
            return None
        return cls(ids, types, words, scales.data, segments.data, producers(first)[0].data)


def _is_row_of_table(node: ov.Node) -> bool:
    """Whether a node gathers rows of a constant table by indices [B, L]."""
    if node.get_type_name() != "Gather":
        return False
    table, _, axis = producers(node)
    return bool(
        table.get_type_name() == axis.get_type_name() == "Constant"
        and table.data.ndim == 2
        and axis.data.item() == 0
        and node.input_value(1).get_partial_shape().rank == ov.Dimension(2)
        and node.get_attributes()["batch_dims"] == 0
    )


def _is_first_rows(node: ov.Node, ids: ov.Output) -> bool:
    """Whether a node slices the first L rows off a constant table, L being taken from the shape of ids, [B, L]."""
    if producer_types(node) != ["Constant", "Constant", "Gather", "Constant", "Constant"]:
        return False
    table, start, stop, step, axis = producers(node)
    if producer_types(stop) != ["ShapeOf", "Constant", "Constant"]:
        return False
    shape, *which = producers(stop)
    return bool(
        shape.input_value(0) == ids
        and [constant.data.tolist() for constant in which] == [[1], 0]
        and [constant.data.tolist() for constant in (start, step, axis)] == [[0], [1], [0]]
        and table.data.ndim == 2
    )
