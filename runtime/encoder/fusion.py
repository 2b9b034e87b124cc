"""Fuse an INT8 graph into a few ops of the extension.

OpenVINO's own nodes look up a kernel for each new number of tokens; these ops do not.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from .eight_bits import DEPTH_STEP, EightBitProduct, pack
from .graph_walk import producers, replace_output
from .joined_layers import join_layers
from .named_nodes import NamedNodes
from .ops import attention, float_linear, quantized_embeddings, quantized_linears
from .patterns import Array, Embeddings, Normalization, Product
from .plain_graph import give_float_weights
from .quantized_patterns import QuantizedRows, Quantizer


def projections(
    nodes: NamedNodes, layer: int, value_factors: Array | None = None, *, with_query: bool = True
) -> ov.Output:
    """Query, key and value of a layer side by side, float32 [B, L, 3 H], from one matrix product if possible.

    Args:
        nodes: Nodes by name.
        layer: Index of the layer.
        value_factors: Factors by which the columns of the value are multiplied, [H]; None for no factors.
        with_query: Otherwise only key and value, [B, L, 2 H].

    Raises:
        BundleFormatError: One of the three nodes is not in the graph.
    """
    parts = ("query", "key", "value") if with_query else ("key", "value")
    biased = [nodes[f"layer.{layer}.{part}"] for part in parts]
    factors = np.ones(1, np.float32) if value_factors is None else value_factors
    products = [Product.of(node) for node in biased]
    keys = {None if product is None else product.join_key for product in products}
    if None in keys or len(keys) > 1:
        *outputs, value = (node.output(0) for node in biased)
        return ops.concat([*outputs, ops.multiply(value, factors).output(0)], 2).output(0)
    *others, last = (product for product in products if product is not None)
    return Product.joined([*others, last.scaled(factors)]).output()


def fuse(
    model: ov.Model,
    *,
    num_layers: int,
    num_heads: int,
    float_weights: bool = False,
    portable: bool = False,
    separate_after: Collection[int] = (),
) -> None:
    """Rewrite an INT8 graph in place: one op computes the embeddings, and four compute a layer.

    One product computes query, key and value; attention multiplies integers and quantises its context to 8 bits; the
    output projection and the feed-forward part each include their residual and LayerNorm. Nodes that do not look as the
    exporter writes them are left unchanged, except that weights of INT8 products may become floats.

    Args:
        model: A bundle's graph, with or without token selection.
        num_layers: Layers of the encoder.
        num_heads: Attention heads.
        float_weights: Apply `give_float_weights` to the products that are not fused, whose sums would saturate.
        portable: Let the ops pack weights themselves when they first run, so that the graph can be stored for any CPU.
        separate_after: See `join_layers`.

    Raises:
        BundleFormatError: A node is not in the graph.
    """
    nodes = NamedNodes(model)
    _fuse_embeddings(nodes["embeddings.output"])
    for layer in range(num_layers):
        if f"layer.{layer}.attention" in nodes:  # a layer that selects by attention has our op already
            _fuse_attention(nodes, layer, num_heads)
        for name in (f"layer.{layer}.attention.output", f"layer.{layer}.output"):
            _fuse_residual(nodes[name], portable)
    model.validate_nodes_and_infer_types()
    for node in model.get_ordered_ops():
        _fuse_product(node, portable)
    for node in model.get_ordered_ops():
        _fuse_float_product(node)
    join_layers(model, num_layers, separate_after)
    if float_weights:
        give_float_weights(model)
    model.validate_nodes_and_infer_types()


def _fuse_attention(nodes: NamedNodes, layer: int, num_heads: int) -> None:
    mask_over_heads = producers(nodes[f"layer.{layer}.attention"])[3]
    mask = mask_over_heads.input_value(0)
    context = nodes[f"layer.{layer}.context"].output(0)
    query = _query_of_fewer_rows(nodes, layer)
    quantizer = Quantizer.only(context)
    if quantizer is None or len(context.get_target_inputs()) > 1:
        projected = projections(nodes, layer, with_query=query is None)
        replace_output(context, attention(projected, mask, num_heads, int16=True, query=query))
        return
    quantized = attention(
        projections(nodes, layer, quantizer.smoothing, with_query=query is None),
        mask,
        num_heads,
        int16=True,
        inv_scale=1 / quantizer.scale,
        zero_point=quantizer.zero_point,
        query=query,
    )
    quantizer.replace_by(quantized)


def _query_of_fewer_rows(nodes: NamedNodes, layer: int) -> ov.Output | None:
    """The layer's query if it is only computed for the first tokens; None if for all."""
    query, key = (nodes[f"layer.{layer}.{part}"].output(0) for part in ("query", "key"))
    lengths = [output.get_partial_shape()[1] for output in (query, key)]
    return query if lengths[0].is_static and lengths[0] != lengths[1] else None


def _fuse_embeddings(output: ov.Node) -> None:
    """Fuse the sum of word, segment and position embeddings with its LayerNorm."""
    normalization = Normalization.of(output)
    found = None if normalization is None else Embeddings.of(normalization.total)
    if normalization is None or found is None:
        return
    tables = (found.words.data, found.segments, found.positions, normalization.gamma, normalization.beta)
    if len({table.shape[-1] for table in tables}) > 1:
        return
    fused = quantized_embeddings(
        ops.convert(found.ids, np.int32).output(0),  # which OpenVINO's CPU plugin does anyway
        ops.convert(found.types, np.int32).output(0),
        found.words.output(0),
        scales=found.scales,
        segments=found.segments,
        positions=found.positions,
        gamma=normalization.gamma,
        beta=normalization.beta,
        epsilon=normalization.epsilon,
    )
    _take_place(fused, output)


def _fuse_residual(output: ov.Node, portable: bool) -> None:
    """Fuse one product, or two with GELU between them, with the addition of the residual and LayerNorm."""
    normalization = Normalization.of(output)
    if normalization is None:
        return
    product, residual = normalization.total.input_values()
    found = _eight_bits(product.get_node())
    if found is None:
        return
    rows, products = found[0], [found[1]]
    if _is_gelu(rows.get_node()):
        before = _eight_bits(rows.get_node().input_value(0).get_node())
        if before is not None:
            rows, products = before[0], [before[1], *products]
    fused = quantized_linears(
        rows,
        pack(products, [normalization.gamma, normalization.beta], portable=portable),
        widths=[len(p.weight) for p in products],
        zero_points=[p.zero_point for p in products],
        epsilon=normalization.epsilon,
        residual=None if residual == rows else residual,
    )
    _take_place(fused, output)


def _take_place(fused: ov.Node, output: ov.Node) -> None:
    replace_output(output.output(0), fused.output(0))
    fused.set_friendly_name(output.get_friendly_name())


def _fuse_product(biased: ov.Node, portable: bool) -> None:
    found = _eight_bits(biased)
    if found is not None:
        rows, product = found
        fused = quantized_linears(
            rows,
            pack([product], portable=portable),
            widths=[len(product.weight)],
            zero_points=[product.zero_point],
        )
        replace_output(biased.output(0), fused.output(0))


def _fuse_float_product(biased: ov.Node) -> None:
    """Fuse a linear layer in floats, and the tanh after it, if it has one row for each input, as a classifier does."""
    product = Product.of(biased)
    if product is None or product.scale is not None or product.weight.ndim != 2:
        return
    matmul, shape = producers(biased)[0].get_attributes(), product.source.get_partial_shape()
    if matmul["transpose_a"] or not matmul["transpose_b"]:
        return
    columns, bias = len(product.weight), product.bias
    if bias.ndim > 3 or bias.shape[-1:] != (columns,) or bias.size != columns:
        return
    if product.source.get_element_type() != ov.Type.f32 or shape.rank != ov.Dimension(3) or shape[1] != ov.Dimension(1):
        return
    layer = np.concatenate([product.weight, product.bias.reshape(-1, 1)], axis=1)
    targets = [target.get_node() for target in biased.output(0).get_target_inputs()]
    last = targets[0] if [target.get_type_name() for target in targets] == ["Tanh"] else biased
    replace_output(last.output(0), float_linear(product.source, layer, tanh=last is not biased))


def _eight_bits(biased: ov.Node) -> tuple[ov.Output, EightBitProduct] | None:
    """Rows and constants of a linear layer that `quantized_linears` can compute; None for any other node."""
    product = Product.of(biased)
    if product is None or product.scale is None or product.weight.shape[1] % DEPTH_STEP:
        return None
    quantized = QuantizedRows.of(product.source)
    if quantized is None:
        return None
    scale = product.scale.ravel() * np.float32(quantized.scale)
    bias = product.bias.ravel()
    return quantized.rows, EightBitProduct(product.weight, scale, bias, quantized.inv_scale, quantized.zero_point)


def _is_gelu(node: ov.Node) -> bool:
    return bool(node.get_type_name() == "Gelu" and node.get_attributes()["approximation_mode"].upper() == "ERF")
