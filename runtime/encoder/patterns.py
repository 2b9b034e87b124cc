"""What groups of a graph's nodes compute: matrix products, and how numbers become integers of 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Product:
    """source * weight, transposed, + bias.

    Attributes:
        source: What is multiplied, [B, L, K].
        weight: [N, K].
        scale: Of each row of an INT8 weight, [N, 1].
        bias: N numbers.
    """

    source: ov.Output
    weight: Array
    scale: Array | None
    bias: Array

    @classmethod
    def of(cls, node: ov.Node) -> Product | None:
        """What a node computes, if it is of this form."""
        if kinds(node) != ["MatMul", "Constant"]:
            return None
        product, bias = producers(node)
        weight, scale = producers(product)[1], None
        if kinds(weight) == ["Convert", "Constant"]:
            convert, scales = producers(weight)
            weight, scale = producers(convert)[0], scales.data
        if weight.get_type_name() != "Constant":
            return None
        return cls(product.input_value(0), weight.data, scale, bias.data)

    @classmethod
    def joined(cls, products: Sequence[Product]) -> Product:
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

    def scaled(self, factors: Array) -> Product:
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
class Quantizer:
    """A FakeQuantize to 256 levels.

    Attributes:
        node: It.
        smoothing: The factors that what it quantises is multiplied by before.
        scale: Of one level.
        zero_point: The level of 0.
    """

    node: ov.Node
    smoothing: Array | None
    scale: float
    zero_point: float

    @classmethod
    def only(cls, output: ov.Output) -> Quantizer | None:
        """The one that an output leads to, whatever else does with it."""
        found = [quantizer for target in output.get_target_inputs() if (quantizer := cls._at(target)) is not None]
        return found[0] if len(found) == 1 else None

    @classmethod
    def _at(cls, target: ov.Input) -> Quantizer | None:
        node, smoothing = target.get_node(), None
        if node.get_type_name() == "Multiply":
            factors = producers(node)[1 - target.get_index()]
            consumers = node.output(0).get_target_inputs()
            if factors.get_type_name() != "Constant" or len(consumers) != 1:
                return None
            node, smoothing = next(iter(consumers)).get_node(), factors.data
        return cls(node, smoothing, *_levels(node)) if node.get_type_name() == "FakeQuantize" else None

    def give(self, quantized: ov.Output) -> None:
        """Put what is quantised already, uint8 [B, L, H], in its place."""
        levels = ops.subtract(ops.convert(quantized, np.float32), np.float32(self.zero_point))
        replace_output(self.node.output(0), ops.multiply(levels, np.float32(self.scale)).output(0))


@dataclass(frozen=True)
class Levels:
    """Numbers in 256 levels: scale * (level - zero_point).

    Attributes:
        rows: The levels themselves, uint8 [B, L, K]; or, with `units`, what becomes of rows * units + zero_point.
        units: Levels in 1, float32 [K].
        scale: Of one level.
        zero_point: The level of 0.
    """

    rows: ov.Output
    units: Array | None
    scale: float
    zero_point: float

    @classmethod
    def of(cls, output: ov.Output) -> Levels | None:
        """What a FakeQuantize gives, or `Quantizer.give` has put in its place; None for anything else."""
        node = output.get_node()
        if node.get_type_name() == "FakeQuantize":
            scale, zero_point = _levels(node)
            rows, smoothing = node.input_value(0), None
            before = rows.get_node()
            if before.get_type_name() == "Multiply" and kinds(before)[1] == "Constant":
                rows, smoothing = before.input_value(0), producers(before)[1].data
            size = rows.get_partial_shape()[2].get_length()
            factors = np.float32(1) if smoothing is None else smoothing.ravel()
            units = np.broadcast_to(factors / np.float32(scale), size).astype(np.float32)
            return cls(rows, units, scale, zero_point)
        if node.get_type_name() != "Multiply" or kinds(node) != ["Subtract", "Constant"]:
            return None
        subtracted, scales = producers(node)
        if kinds(subtracted) != ["Convert", "Constant"]:
            return None
        converted, zero_points = producers(subtracted)
        rows = converted.input_value(0)
        if rows.get_element_type() != ov.Type.u8:
            return None
        return cls(rows, None, float(scales.data.item()), float(zero_points.data.item()))


@dataclass(frozen=True)
class Normalization:
    """(total - mean) / sqrt(variance + epsilon) * gamma + beta, over the last of three axes.

    Attributes:
        total: What is normalised, a sum.
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
        """What a node computes, if it is of this form."""
        if node.get_type_name() != "Add" or kinds(node) != ["Multiply", "Constant"]:
            return None
        scaled, beta = producers(node)
        if kinds(scaled) != ["MVN", "Constant"]:
            return None
        normal, gamma = producers(scaled)
        total, axes = producers(normal)
        if kinds(normal) != ["Add", "Constant"] or axes.data.tolist() != [-1]:
            return None
        return cls(total, gamma.data.ravel(), beta.data.ravel(), normal.get_attributes()["eps"])


@dataclass(frozen=True)
class Embeddings:
    """words[ids] * scales[ids] + segments[types] + the first positions, as many as there are ids in a sequence.

    Attributes:
        ids: [B, L].
        types: [B, L].
        words: A constant, int8 [V, H].
        scales: [V, 1].
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
        """What a node computes, if it is of this form."""
        if node.get_type_name() != "Add" or kinds(node) != ["Add", "Slice"]:
            return None
        words_and_segments, first = producers(node)
        if kinds(words_and_segments) != ["Multiply", "Gather"]:
            return None
        scaled, segment = producers(words_and_segments)
        if kinds(scaled) != ["Convert", "Gather"]:
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


def replace_output(output: ov.Output, by: ov.Output) -> None:
    """Let all that reads an output read another."""
    for target in output.get_target_inputs():
        target.replace_source_output(by)


def producers(node: ov.Node) -> list[ov.Node]:
    """The nodes that give a node's inputs, in their order."""
    return [value.get_node() for value in node.input_values()]


def kinds(node: ov.Node) -> list[str]:
    """Their types."""
    return [producer.get_type_name() for producer in producers(node)]


def _levels(node: ov.Node) -> tuple[float, float]:
    low, high = (float(producer.data.item()) for producer in producers(node)[1:3])
    scale = (high - low) / 255
    return scale, round(-low / scale)


def _is_row_of_table(node: ov.Node) -> bool:
    """Whether it gathers rows of a constant by indices [B, L]."""
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
    """Whether it slices as many rows off a constant as there are ids in a sequence, [B, L]."""
    if kinds(node) != ["Constant", "Constant", "Gather", "Constant", "Constant"]:
        return False
    table, start, stop, step, axis = producers(node)
    if kinds(stop) != ["ShapeOf", "Constant", "Constant"]:
        return False
    shape, *which = producers(stop)
    return bool(
        shape.input_value(0) == ids
        and [constant.data.tolist() for constant in which] == [[1], 0]
        and [constant.data.tolist() for constant in (start, step, axis)] == [[0], [1], [0]]
        and table.data.ndim == 2
    )
