"""An INT8 graph as few nodes that take any number of tokens; OpenVINO's look up a kernel for each new length."""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from .eight_bits import DEPTH_STEP, EightBitProduct, pack
from .named_nodes import NamedNodes
from .ops import attention, quantized_embeddings, quantized_linears
from .patterns import Array, Embeddings, Levels, Normalization, Product, Quantizer, producers, replace_output
from .plain_graph import give_float_weights


def projections(nodes: NamedNodes, layer: int, value_factors: Array | None = None) -> ov.Output:
    """Query, key and value of a layer side by side, float32 [B, L, 3 H], from one matrix product if that can be.

    Args:
        nodes: Nodes by name.
        layer: Its number.
        value_factors: What the columns of the values are multiplied by, [H].
    """
    biased = [nodes[f"layer.{layer}.{part}"] for part in ("query", "key", "value")]
    factors = np.ones(1, np.float32) if value_factors is None else value_factors
    products = [Product.of(node) for node in biased]
    alike = {None if product is None else product.likeness for product in products}
    if None in alike or len(alike) > 1:
        *others, value = (node.output(0) for node in biased)
        return ops.concat([*others, ops.multiply(value, factors).output(0)], 2).output(0)
    query, key, value = (product for product in products if product is not None)
    return Product.joined([query, key, value.scaled(factors)]).output()


def fuse(model: ov.Model, *, num_layers: int, num_heads: int, float_weights: bool = False) -> None:
    """Rewrite an INT8 graph in place: one op makes the embeddings, four make a layer.

    Query, key and value come from one product, attention multiplies integers and gives its context in 8 bits; its
    output projection, and the two products of the feed-forward part, come with the residual and the normalisation.
    What is not as the exporter writes it stays as it is, but for weights of INT8 products, which may become floats.

    Args:
        model: A bundle's graph, tokens being selected in it or not.
        num_layers: Layers of the encoder.
        num_heads: Attention heads.
        float_weights: Give `give_float_weights` the products that stay OpenVINO's, as they would saturate.

    Raises:
        BundleFormatError: A node is not in the graph.
    """
    nodes = NamedNodes(model)
    _fuse_embeddings(nodes["embeddings.output"])
    for layer in range(num_layers):
        if f"layer.{layer}.attention" in nodes:  # a layer that selects by attention has an op already
            _fuse_attention(nodes, layer, num_heads)
        for name in (f"layer.{layer}.attention.output", f"layer.{layer}.output"):
            _fuse_residual(nodes[name])
    model.validate_nodes_and_infer_types()
    for node in model.get_ordered_ops():
        _fuse_product(node)
    if float_weights:
        give_float_weights(model)  # to products that stayed OpenVINO's
    model.validate_nodes_and_infer_types()


def _fuse_attention(nodes: NamedNodes, layer: int, num_heads: int) -> None:
    mask_over_heads = producers(nodes[f"layer.{layer}.attention"])[3]
    mask = mask_over_heads.input_value(0)
    context = nodes[f"layer.{layer}.context"].output(0)
    quantizer = Quantizer.only(context)
    if quantizer is None or len(context.get_target_inputs()) > 1:
        replace_output(context, attention(projections(nodes, layer), mask, num_heads, int16=True))
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


def _fuse_embeddings(output: ov.Node) -> None:
    """Word rows in 8 bits, their scales, segments, positions and the normalisation."""
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


def _fuse_residual(output: ov.Node) -> None:
    """A product or, with GELU between them, two, the addition of a residual and its normalisation."""
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
        pack(products, [normalization.gamma, normalization.beta]),
        widths=[len(p.weight) for p in products],
        zero_points=[p.zero_point for p in products],
        epsilon=normalization.epsilon,
        residual=None if residual == rows else residual,
    )
    _take_place(fused, output)


def _take_place(fused: ov.Node, output: ov.Node) -> None:
    replace_output(output.output(0), fused.output(0))
    fused.set_friendly_name(output.get_friendly_name())


def _fuse_product(biased: ov.Node) -> None:
    found = _eight_bits(biased)
    if found is not None:
        rows, product = found
        fused = quantized_linears(rows, pack([product]), widths=[len(product.weight)], zero_points=[product.zero_point])
        replace_output(biased.output(0), fused.output(0))


def _eight_bits(biased: ov.Node) -> tuple[ov.Output, EightBitProduct] | None:
    """The rows and the rest of a product that an extension's op can take over."""
    product = Product.of(biased)
    if product is None or product.scale is None or product.weight.shape[1] % DEPTH_STEP:
        return None
    levels = Levels.of(product.source)
    if levels is None:
        return None
    scale = product.scale.ravel() * np.float32(levels.scale)
    bias = product.bias.ravel()
    return levels.rows, EightBitProduct(product.weight, scale, bias, levels.units, levels.zero_point)


def _is_gelu(node: ov.Node) -> bool:
    return bool(node.get_type_name() == "Gelu" and node.get_attributes()["approximation_mode"].upper() == "ERF")
