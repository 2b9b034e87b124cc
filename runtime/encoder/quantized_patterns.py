"""Recognise where a graph quantises numbers to 8 bits: scale * (q - zero_point), q being an integer of 0 ... 255."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from .graph_walk import producer_types, producers, replace_output
from .patterns import Array


@dataclass(frozen=True)
class Quantizer:
    """A FakeQuantize to 256 levels, and the smoothing before it.

    Attributes:
        node: The FakeQuantize node.
        smoothing: Factors by which its input is multiplied first; None if there are none.
        scale: Scale of the quantised numbers.
        zero_point: Zero point of the quantised numbers.
    """

    node: ov.Node
    smoothing: Array | None
    scale: float
    zero_point: float

    @classmethod
    def only(cls, output: ov.Output) -> Quantizer | None:
        """The quantizer that reads an output, if there is exactly one; the output may have other consumers."""
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
        return cls(node, smoothing, *_scale_and_zero_point(node)) if node.get_type_name() == "FakeQuantize" else None

    def replace_by(self, quantized: ov.Output) -> None:
        """Let the consumers of the FakeQuantize dequantise `quantized`, uint8 [B, L, H], instead."""
        shifted = ops.subtract(ops.convert(quantized, np.float32), np.float32(self.zero_point))
        replace_output(self.node.output(0), ops.multiply(shifted, np.float32(self.scale)).output(0))


@dataclass(frozen=True)
class QuantizedRows:
    """Rows of numbers scale * (q - zero_point).

    Attributes:
        rows: The quantised numbers q, uint8 [B, L, K]; or, with `inv_scale`, the numbers before they are quantised,
            float32 [B, L, K], where q = rows * inv_scale + zero_point, rounded.
        inv_scale: 1 / scale of each column, smoothing included, float32 [K]; None for rows that are quantised already.
        scale: Scale of the quantised numbers.
        zero_point: Zero point of the quantised numbers.
    """

    rows: ov.Output
    inv_scale: Array | None
    scale: float
    zero_point: float

    @classmethod
    def of(cls, output: ov.Output) -> QuantizedRows | None:
        """Recognise a FakeQuantize or what `Quantizer.replace_by` builds; None for anything else."""
        node = output.get_node()
        if node.get_type_name() == "FakeQuantize":
            return cls._to_be_quantized(node)
        if node.get_type_name() != "Multiply" or producer_types(node) != ["Subtract", "Constant"]:
            return None
        subtracted, scales = producers(node)
        if producer_types(subtracted) != ["Convert", "Constant"]:
            return None
        converted, zero_points = producers(subtracted)
        rows = converted.input_value(0)
        if rows.get_element_type() != ov.Type.u8:
            return None
        return cls(rows, None, float(scales.data.item()), float(zero_points.data.item()))

    @classmethod
    def _to_be_quantized(cls, node: ov.Node) -> QuantizedRows:
        scale, zero_point = _scale_and_zero_point(node)
        rows, smoothing = node.input_value(0), None
        before = rows.get_node()
        if before.get_type_name() == "Multiply" and producer_types(before)[1] == "Constant":
            rows, smoothing = before.input_value(0), producers(before)[1].data
        size = rows.get_partial_shape()[2].get_length()
        factors = np.float32(1) if smoothing is None else smoothing.ravel()
        inv_scale = np.broadcast_to(factors / np.float32(scale), size).astype(np.float32)
        return cls(rows, inv_scale, scale, zero_point)


def requantized(quantized: ov.Output, old: ov.Output, new: ov.Output) -> ov.Output | None:
    """Quantise `new` as `quantized` quantises `old`; None unless it is a FakeQuantize of `old`, smoothed or not."""
    node = quantized.get_node()
    if node.get_type_name() != "FakeQuantize":
        return None
    rows, *limits = node.input_values()
    before = rows.get_node()
    if rows != old and producer_types(before)[1:] == ["Constant"] and before.get_type_name() == "Multiply":
        rows, smoothing = before.input_values()
        new = ops.multiply(new, smoothing).output(0)
    if rows != old:
        return None
    return ops.fake_quantize(new, *limits, node.get_attributes()["levels"]).output(0)


def _scale_and_zero_point(fake_quantize: ov.Node) -> tuple[float, float]:
    low, high = (float(producer.data.item()) for producer in producers(fake_quantize)[1:3])
    scale = (high - low) / 255
    return scale, round(-low / scale)
