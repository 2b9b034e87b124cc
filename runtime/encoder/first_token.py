"""Compute only the first token in a graph's last layer, for heads that read no other."""

from __future__ import annotations

from openvino import opset13 as ops

from dynamic_tinybert.runtime.common.errors import BundleFormatError

from .graph_walk import producers
from .named_nodes import NamedNodes
from .patterns import Product
from .quantized_patterns import requantized


def keep_first_token(nodes: NamedNodes, layer: int) -> None:
    """Let one layer compute the first token alone, [B, 1, H], from the keys and values of all tokens.

    Its query, output projection and feed-forward part then see one row instead of L. The row is the same as before.

    Args:
        nodes: Nodes of a bundle's graph without token selection.
        layer: The layer, the last one of the encoder.

    Raises:
        BundleFormatError: The layer's query is not a matrix product of its input with a bias.
    """
    query, residual = nodes[f"layer.{layer}.query"], nodes[f"layer.{layer}.attention.residual"]
    state = residual.input_value(1)
    first = ops.gather(state, [0], 1).output(0)
    product = Product.of(query)
    rows = None if product is None else first if product.source == state else requantized(product.source, state, first)
    if rows is None:
        raise BundleFormatError(
            f"the node {query.get_friendly_name()} is not a matrix product of the layer's input with a bias; export "
            "the checkpoint again"
        )
    producers(query)[0].input(0).replace_source_output(rows)
    residual.input(1).replace_source_output(first)
