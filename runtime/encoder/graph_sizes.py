"""Whether a graph is the encoder that its bundle describes."""

from __future__ import annotations

import openvino as ov

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.common.errors import BundleFormatError

from .graph_walk import producers
from .named_nodes import NamedNodes

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_OUTPUTS = ("start_logits", "end_logits")


def check_graph_sizes(model: ov.Model, bundle: Bundle) -> None:
    """Check a graph's inputs, outputs, layers, heads, widths and tables against what the bundle says.

    Raises:
        BundleFormatError: Something differs, or a node is not there.
    """
    _check_ends(model)
    nodes, shape = NamedNodes(model), bundle.shape
    hidden, heads = shape.hidden_size, bundle.num_attention_heads
    if (more := f"layer.{shape.num_layers}.output") in nodes:
        raise BundleFormatError(f"the graph has a node {more}, where config.json has {shape.num_layers} layers")
    _check(nodes["embeddings.output"], 3, {2: hidden})
    for layer in range(shape.num_layers):
        for part in ("query", "key", "value", "context", "attention.residual", "attention.output", "output"):
            _check(nodes[f"layer.{layer}.{part}"], 3, {2: hidden})
        attention = nodes[f"layer.{layer}.attention"]
        if attention.get_type_name() != "ScaledDotProductAttention" or len(attention.inputs()) != 4:
            raise BundleFormatError(f"the node {attention.get_friendly_name()} is no attention with a mask")
        _check(attention, 4, {1: heads, 3: hidden // heads})
    _check(nodes["logits"], 3, {2: 2})
    _check(nodes["mask"], 2, {})
    _check_tables(model, bundle)


def _check_ends(model: ov.Model) -> None:
    for ends, names, kind, what in (
        (model.inputs, _INPUTS, ov.Type.i64, "inputs"),
        (model.outputs, _OUTPUTS, ov.Type.f32, "outputs"),
    ):
        found = {tuple(sorted(end.get_names())): end for end in ends}
        if len(found) != len(ends) or found.keys() != {(name,) for name in names}:
            raise BundleFormatError(f"the graph has the {what} {sorted(found)}, and needs {list(names)}")
        for (name,), end in found.items():
            shape = end.get_partial_shape()
            if end.get_element_type() != kind or shape.rank != ov.Dimension(2) or any(d.is_static for d in shape):
                raise BundleFormatError(
                    f"{name} of the graph is {end.get_element_type()} of shape {shape}, and must be {kind} of any "
                    "two dimensions"
                )


def _check_tables(model: ov.Model, bundle: Bundle) -> None:
    """Ids, types and positions must be within the tables that they are looked up in."""
    needed = {"input_ids": bundle.vocab_size, "token_type_ids": bundle.type_vocab_size}
    looked_up = set()
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Gather" and (source := producers(node)[1].get_friendly_name()) in needed:
            looked_up.add(source)
            _check_rows(producers(node)[0], needed[source], source)
        elif node.get_type_name() == "Slice":
            _check_rows(producers(node)[0], bundle.max_length, "positions")
    if missing := needed.keys() - looked_up:
        raise BundleFormatError(f"the graph looks up no {sorted(missing)} in a table")


def _check_rows(table: ov.Node, rows: int, what: str) -> None:
    shape = table.get_output_partial_shape(0)
    if table.get_type_name() != "Constant" or len(shape) != 2 or shape[0] != ov.Dimension(rows):
        raise BundleFormatError(f"the table of {what} has shape {shape}, where config.json says {rows} rows")


def _check(node: ov.Node, rank: int, sizes: dict[int, int]) -> None:
    shape = node.get_output_partial_shape(0)
    fits = shape.rank == ov.Dimension(rank) and all(shape[k] == ov.Dimension(size) for k, size in sizes.items())
    if len(node.outputs()) != 1 or node.get_output_element_type(0) != ov.Type.f32 or not fits:
        wanted = ", ".join(str(sizes.get(k, "?")) for k in range(rank))
        raise BundleFormatError(
            f"the node {node.get_friendly_name()} of the graph is {node.get_output_element_type(0)} of shape {shape}, "
            f"where config.json needs f32 [{wanted}]; export the checkpoint again"
        )
