"""The PyTorch twin of a bundle: the plain model with the weights and the rounding of the bundle's graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertPreTrainedModel

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.bundles.files import CONFIG
from dynamic_tinybert.runtime.common.errors import BundleFormatError
from dynamic_tinybert.runtime.encoder.graph_walk import producers
from dynamic_tinybert.runtime.encoder.named_nodes import NamedNodes
from dynamic_tinybert.runtime.encoder.patterns import Normalization, Product
from dynamic_tinybert.runtime.encoder.plain_graph import read_plain_graph, rewriting
from dynamic_tinybert.runtime.encoder.quantized_patterns import QuantizedRows
from dynamic_tinybert.runtime.tasks import task_named

from .tasks import model_task

Array = npt.NDArray[np.float32]

_EMBEDDINGS = "bert.embeddings"


@dataclass(frozen=True)
class LinearOfGraph:
    """A linear layer as a graph computes it: y = scale * step * (q @ weight.T) + bias.

    In an INT8 graph q = clip(round(x * inv_scale), -zero_point, 255 - zero_point), and weights are whole numbers. In
    other graphs q = x, and scale and step are 1.

    Attributes:
        weight: float32, [out, in].
        bias: float32, [out].
        scale: Step of the weights, float32 [out].
        step: Step of the inputs.
        inv_scale: One by the step of the inputs, times SmoothQuant's factors, float32 [in]; None in FP32.
        zero_point: What stands for 0 among the 256 levels of an input.
    """

    weight: Array
    bias: Array
    scale: Array
    step: float = 1.0
    inv_scale: Array | None = None
    zero_point: int = 0

    @property
    def plain_weight(self) -> Array:
        """The weight of the same layer without rounding: y = x @ plain_weight.T + bias."""
        plain = self.weight * self.scale[:, None]
        return plain if self.inv_scale is None else plain * (self.inv_scale * np.float32(self.step))


class RoundingLinear(nn.Linear):
    """A linear layer that rounds its input to 256 levels, as an INT8 graph does.

    Inputs and weights are whole numbers below 256, which bfloat16 represents exactly: under mixed precision only the
    sum is rounded. Rounding has the gradient of the identity where it does not clip.
    """

    scale: Tensor
    inv_scale: Tensor

    def __init__(self, linear: LinearOfGraph) -> None:
        assert linear.inv_scale is not None
        super().__init__(linear.weight.shape[1], linear.weight.shape[0])
        self.zero_point = linear.zero_point
        self.weight.data = torch.from_numpy(linear.weight)
        self.bias.data = torch.from_numpy(linear.bias)
        self.register_buffer("scale", torch.from_numpy(linear.scale * np.float32(linear.step)))
        self.register_buffer("inv_scale", torch.from_numpy(linear.inv_scale))

    def forward(self, input: Tensor) -> Tensor:  # the name in nn.Linear
        """The layer's output `[..., out]`, in the type of the input `[..., in]` or of mixed precision."""
        levels = torch.fake_quantize_per_tensor_affine(input.float() * self.inv_scale, 1.0, self.zero_point, 0, 255)
        return functional.linear(levels, self.weight) * self.scale + self.bias


def model_of_bundle(bundle: Bundle, *, rounding: bool = True) -> BertPreTrainedModel:
    """Make the PyTorch model that computes what a bundle's graph computes when nothing is dropped.

    Weights are the graph's, and in INT8 graphs inputs of linear layers are rounded as in the graph. What remains are
    the graph's 16-bit integers in attention and the order of sums.

    Args:
        bundle: The bundle.
        rounding: Round the inputs of linear layers as the graph does. Without it a pass takes a quarter less time.

    Returns:
        The model in evaluation mode, without gradients for its parameters.

    Raises:
        BundleFormatError: No model can be made of the graph; the message says which node is the reason.
        InferenceError: OpenVINO cannot read the graph.
        InvalidInputError: There is no model for the task.
    """
    contents = _contents(bundle)
    model = _plain_model(bundle, contents)
    for name, linear in contents.linears.items():
        if rounding and linear.inv_scale is not None:
            model.set_submodule(name, RoundingLinear(linear))
    nn.Module.eval(model)
    return model.requires_grad_(False)


def weights_of_bundle(bundle: Bundle) -> dict[str, Array]:
    """The weights of a bundle's graph by their names in the plain model; INT8 weights are dequantised.

    A model with these weights computes what the graph's `full` computes, except for the rounding of activations.

    Raises:
        BundleFormatError: No model can be made of the graph; the message says which node is the reason.
        InferenceError: OpenVINO cannot read the graph.
        InvalidInputError: There is no model for the task.
    """
    return _contents(bundle).weights


@dataclass(frozen=True)
class _Contents:
    """What a graph holds, by the names in the plain model.

    Attributes:
        linears: The linear layers.
        others: The other weights.
        epsilon: What all LayerNorms add to the variance.
    """

    linears: Mapping[str, LinearOfGraph]
    others: Mapping[str, Array]
    epsilon: float

    @property
    def weights(self) -> dict[str, Array]:
        """All weights; those of linear layers are plain."""
        weights = dict(self.others)
        for name, linear in self.linears.items():
            weights |= {f"{name}.weight": linear.plain_weight, f"{name}.bias": linear.bias}
        return weights


def _plain_model(bundle: Bundle, contents: _Contents) -> BertPreTrainedModel:
    weights = contents.weights
    config = BertConfig.from_pretrained(bundle.path / CONFIG)
    config.hidden_act = "gelu"  # the only one that `_gelu_before` accepts
    config.layer_norm_eps = contents.epsilon
    config.type_vocab_size = len(weights[f"{_EMBEDDINGS}.token_type_embeddings.weight"])
    model = model_task(bundle.task).architecture(config)
    try:
        model.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})
    except RuntimeError as error:
        raise BundleFormatError(
            f"no {type(model).__name__} can be made of the graph of {bundle.path}: {error}"
        ) from error
    return model


def _contents(bundle: Bundle) -> _Contents:
    try:
        return _read(bundle)
    except BundleFormatError as error:
        raise BundleFormatError(f"no PyTorch model can be made of the graph of {bundle.path}: {error}") from error


def _read(bundle: Bundle) -> _Contents:
    graph = read_plain_graph(bundle, task_named(bundle.task))
    num_layers, nodes = bundle.shape.num_layers, NamedNodes(graph)
    with rewriting(bundle):
        found = {name: node for i in range(num_layers) for name, node in _linear_nodes(nodes, i).items()}
        linears = {name: _linear(node) for name, node in found.items()}
        of_encoder = {node.get_friendly_name() for node in found.values()}
        products = [node for node in graph.get_ordered_ops() if Product.of(node) is not None]
        head = [node for node in products if node.get_friendly_name() not in of_encoder]
        names = model_task(bundle.task).head_linears
        if len(head) != len(names):
            raise BundleFormatError(f"the head has {len(head)} linear layers, but {bundle.task} has {len(names)}")
        linears |= {name: _linear(node) for name, node in zip(names, head, strict=True)}
        return _Contents(linears, _other_weights(nodes, num_layers), _epsilon(nodes, num_layers))


def _linear_nodes(nodes: NamedNodes, layer: int) -> dict[str, ov.Node]:
    """The last node of each linear layer of an encoder layer, by the layer's name in the plain model."""
    prefix, name = f"bert.encoder.layer.{layer}", f"layer.{layer}"
    outer = producers(_normalization(nodes[f"{name}.output"]).total)[0]
    return {
        **{f"{prefix}.attention.self.{part}": nodes[f"{name}.{part}"] for part in ("query", "key", "value")},
        f"{prefix}.attention.output.dense": producers(nodes[f"{name}.attention.residual"])[0],
        f"{prefix}.intermediate.dense": producers(_gelu_before(outer))[0],
        f"{prefix}.output.dense": outer,
    }


def _other_weights(nodes: NamedNodes, num_layers: int) -> dict[str, Array]:
    normed = _normalization(nodes["embeddings.output"])
    words_and_segments, positions = producers(normed.total)
    words, segments = producers(words_and_segments)
    weights = {
        f"{_EMBEDDINGS}.word_embeddings.weight": _table(words),
        f"{_EMBEDDINGS}.position_embeddings.weight": _table(positions),
        f"{_EMBEDDINGS}.token_type_embeddings.weight": _table(segments),
        f"{_EMBEDDINGS}.LayerNorm.weight": normed.gamma,
        f"{_EMBEDDINGS}.LayerNorm.bias": normed.beta,
    }
    for i in range(num_layers):
        for place in ("attention.output", "output"):
            norm = _normalization(nodes[f"layer.{i}.{place}"])
            weights[f"bert.encoder.layer.{i}.{place}.LayerNorm.weight"] = norm.gamma
            weights[f"bert.encoder.layer.{i}.{place}.LayerNorm.bias"] = norm.beta
    return {name: np.array(weight, np.float32) for name, weight in weights.items()}


def _epsilon(nodes: NamedNodes, num_layers: int) -> float:
    names = ["embeddings.output"]
    names += [f"layer.{i}.{place}" for i in range(num_layers) for place in ("attention.output", "output")]
    found = {_normalization(nodes[name]).epsilon for name in names}
    if len(found) > 1:
        raise BundleFormatError(f"its LayerNorms add different numbers to the variance: {sorted(found)}")
    return float(str(np.float32(found.pop())))  # the graph has it in float32


def _linear(node: ov.Node) -> LinearOfGraph:
    product = Product.of(node)
    if product is None:
        raise BundleFormatError(f"the node {node.get_friendly_name()!r} is not a linear layer with a bias")
    weight, bias = np.array(product.weight, np.float32), np.array(product.bias, np.float32).ravel()
    scale = np.ones(len(weight), np.float32) if product.scale is None else np.array(product.scale, np.float32).ravel()
    rows = QuantizedRows.of(product.source)
    if rows is None or rows.inv_scale is None:
        return LinearOfGraph(weight, bias, scale)
    return LinearOfGraph(weight, bias, scale, rows.scale, rows.inv_scale, int(rows.zero_point))


def _normalization(node: ov.Node) -> Normalization:
    normalization = Normalization.of(node)
    if normalization is None:
        raise BundleFormatError(f"the node {node.get_friendly_name()!r} is not a LayerNorm of a sum")
    return normalization


def _gelu_before(outer: ov.Node) -> ov.Node:
    """The GELU that a feed-forward part's second linear layer reads."""
    node = producers(producers(outer)[0])[0]
    while node.get_type_name() in ("FakeQuantize", "Multiply"):
        node = producers(node)[0]
    kind = node.get_type_name()
    if kind != "Gelu" or node.get_attributes()["approximation_mode"].lower() != "erf":
        raise BundleFormatError(
            f"the node {outer.get_friendly_name()!r} reads a {kind}, not a GELU of the error function"
        )
    return node


def _table(node: ov.Node) -> Array:
    """An embedding table: the constant that a node gathers or slices, or INT8 values times scales."""
    if node.get_type_name() == "Multiply":
        values, scale = map(_table, producers(node))
        return values * scale
    if node.get_type_name() == "Constant":
        return np.array(node.data, np.float32)
    if not node.get_input_size():
        raise BundleFormatError(f"the node {node.get_friendly_name()!r} is not an embedding table")
    return _table(producers(node)[0])
