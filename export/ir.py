"""Write a BERT encoder and the head of its task as an OpenVINO model, layer by layer.

The graph is built node by node rather than converted: nodes get the names by which token selection finds them
(docs/bundle-format.md), and no reshape depends on the length of the input.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch
from openvino import opset13 as ops
from transformers import BertPreTrainedModel

from dynamic_tinybert.calibration.int8.linears import QuantizedLinear
from dynamic_tinybert.modeling.tasks import task_of
from dynamic_tinybert.modeling.tasks.task import encoder_of

Array = npt.NDArray[np.float32]


def write_ir(model: BertPreTrainedModel, quantized: Mapping[str, QuantizedLinear] | None = None) -> ov.Model:
    """Build the full-length graph of a checkpoint's model.

    Args:
        model: The checkpoint's model, in FP32.
        quantized: INT8 weights and activation ranges by module name; other modules stay FP32. If there are any, the
            word embeddings become INT8 as well, with a scale per row.

    Returns:
        A model with int64 inputs `input_ids`, `attention_mask` and `token_type_ids` [B, L] and the outputs of the
        task's head, float32, by their names; B and L are dynamic.
    """
    return _Writer(model, quantized or {}).model()


class _Writer:
    def __init__(self, model: BertPreTrainedModel, quantized: Mapping[str, QuantizedLinear]) -> None:
        self.task = task_of(model)
        self.config = model.config
        self.weights: dict[str, Array] = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        types = encoder_of(model).embeddings.token_type_embeddings
        with torch.inference_mode():  # run, not read: `OneTokenType` gives the same row for all types
            self.token_types: Array = types(torch.arange(types.num_embeddings)).numpy()
        self.quantized = quantized
        self.quantized_activations: dict[tuple[object, ...], ov.Output] = {}

    def model(self) -> ov.Model:
        ids, mask, types = (
            ops.parameter([-1, -1], np.int64, name=name) for name in ("input_ids", "attention_mask", "token_type_ids")
        )
        for parameter in (ids, mask, types):
            parameter.output(0).get_tensor().set_names({parameter.get_friendly_name()})
        real = ops.convert(mask, np.float32)
        additive = _named(ops.multiply(ops.subtract(real, np.float32(1)), np.float32(10000)), "mask")
        broadcast_mask = ops.unsqueeze(additive, [1, 2])  # broadcast over heads and queries
        state = self.embeddings(ids.output(0), types.output(0))
        for i in range(self.config.num_hidden_layers):
            state = self.layer(i, state, broadcast_mask.output(0))
        results = []
        for name, node in self.task.head_nodes(self.linear, state):
            node.output(0).get_tensor().set_names({name})
            results.append(ops.result(node, name=name))
        return ov.Model(results, [ids, mask, types], "dynamic_tinybert")

    def embeddings(self, ids: ov.Output, types: ov.Output) -> ov.Output:
        prefix = "bert.embeddings"
        words = self.weights[f"{prefix}.word_embeddings.weight"]
        length = ops.gather(ops.shape_of(ids), [1], 0)
        positions = ops.slice(
            self.weights[f"{prefix}.position_embeddings.weight"],
            [0],
            length,
            [1],
            [0],
        )
        if self.quantized:
            table, scale = quantize_rows(words)
            rows = ops.convert(ops.gather(table, ids, 0), np.float32)
            word = ops.multiply(rows, ops.gather(scale[:, None], ids, 0))
        else:
            word = ops.gather(words, ids, 0)
        segment = ops.gather(self.token_types, types, 0)
        total = ops.add(ops.add(word, segment), positions)
        return _named(self.layer_norm(f"{prefix}.LayerNorm", total.output(0)), "embeddings.output").output(0)

    def layer(self, i: int, state: ov.Output, mask: ov.Output) -> ov.Output:
        prefix, name = f"bert.encoder.layer.{i}", f"layer.{i}"
        projected = {
            part: _named(self.linear(f"{prefix}.attention.self.{part}", state), f"{name}.{part}")
            for part in ("query", "key", "value")
        }
        query, key, value = (self.split_heads(node) for node in projected.values())
        attention = _named(ops.scaled_dot_product_attention(query, key, value, mask), f"{name}.attention")
        merged = ops.transpose(attention, [0, 2, 1, 3])
        context = _named(ops.reshape(merged, [0, 0, self.config.hidden_size], True), f"{name}.context")
        dense = self.linear(f"{prefix}.attention.output.dense", context.output(0))
        summed = _named(ops.add(dense, state), f"{name}.attention.residual")
        attended = self.layer_norm(f"{prefix}.attention.output.LayerNorm", summed.output(0))
        _named(attended, f"{name}.attention.output")
        inner = ops.gelu(self.linear(f"{prefix}.intermediate.dense", attended.output(0)), "erf")
        outer = self.linear(f"{prefix}.output.dense", inner.output(0))
        output = self.layer_norm(f"{prefix}.output.LayerNorm", ops.add(outer, attended).output(0))
        return _named(output, f"{name}.output").output(0)

    def split_heads(self, node: ov.Node) -> ov.Node:
        heads = self.config.num_attention_heads
        split = ops.reshape(node, [0, 0, heads, self.config.hidden_size // heads], True)
        return ops.transpose(split, [0, 2, 1, 3])

    def linear(self, name: str, x: ov.Output) -> ov.Node:
        bias = self.weights[f"{name}.bias"][None, None]
        if (quantized := self.quantized.get(name)) is None:
            return ops.add(ops.matmul(x, self.weights[f"{name}.weight"], False, True), bias)
        weight = ops.multiply(ops.convert(ops.constant(quantized.weight), np.float32), quantized.weight_scale[:, None])
        return ops.add(ops.matmul(self.quantize_activation(x, quantized), weight, False, True), bias)

    def quantize_activation(self, x: ov.Output, to: QuantizedLinear) -> ov.Output:
        """Multiply by SmoothQuant's factors, then quantise to 256 levels."""
        smoothing = b"" if to.smoothing is None else to.smoothing.tobytes()
        key = (x.get_node().get_friendly_name(), to.activation_scale, to.activation_zero_point, smoothing)
        if key not in self.quantized_activations:  # query, key and value share one FakeQuantize
            if to.smoothing is not None:
                x = ops.multiply(x, to.smoothing).output(0)
            low = np.float32(-to.activation_zero_point * to.activation_scale)
            high = np.float32((255 - to.activation_zero_point) * to.activation_scale)
            self.quantized_activations[key] = ops.fake_quantize(x, low, high, low, high, 256).output(0)
        return self.quantized_activations[key]

    def layer_norm(self, name: str, x: ov.Output) -> ov.Node:
        normal = ops.mvn(x, [-1], True, self.config.layer_norm_eps, "inside_sqrt")
        return ops.add(ops.multiply(normal, self.weights[f"{name}.weight"]), self.weights[f"{name}.bias"])


def quantize_rows(table: Array) -> tuple[npt.NDArray[np.int8], Array]:
    """Symmetric INT8 values [V, H] and a scale per row [V], so that `table` ≈ values * scale[:, None]."""
    scale = np.maximum(np.abs(table).max(1), np.finfo(np.float32).tiny).astype(np.float32) / np.float32(127)
    return np.rint(table / scale[:, None]).astype(np.int8), scale


def _named(node: ov.Node, name: str) -> ov.Node:
    node.set_friendly_name(name)
    return node
