"""Check that a graph is the encoder that its bundle describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import openvino as ov

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.common.errors import BundleFormatError

from .graph_walk import producers
from .named_nodes import NamedNodes
from .task_graph import TaskGraph

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def check_graph_sizes(model: ov.Model, bundle: Bundle, task: TaskGraph) -> None:
    """Check a graph's inputs, outputs, layers, heads, widths and tables against the bundle and its task.

    Raises:
        BundleFormatError: A size differs, or a node is missing.
    """
    _check_names(model.inputs, _INPUTS, "inputs")
    _check_names(model.outputs, task.output_names, "outputs")
    for name in _INPUTS:
        check_dynamic(model.input(name), name, ov.Type.i64)
    nodes, shape = NamedNodes(model), bundle.shape
    hidden, heads = shape.hidden_size, bundle.num_attention_heads
    if (more := f"layer.{shape.num_layers}.output") in nodes:
        raise BundleFormatError(f"the graph has a node {more}, but config.json states {shape.num_layers} layers")
    check_node(nodes["embeddings.output"], 3, {2: hidden})
    for layer in range(shape.num_layers):
        for part in ("query", "key", "value", "context", "attention.residual", "attention.output", "output"):
            check_node(nodes[f"layer.{layer}.{part}"], 3, {2: hidden})
        attention = nodes[f"layer.{layer}.attention"]
        if attention.get_type_name() != "ScaledDotProductAttention" or len(attention.inputs()) != 4:
            raise BundleFormatError(f"the node {attention.get_friendly_name()} is not an attention node with a mask")
        check_node(attention, 4, {1: heads, 3: hidden // heads})
    check_node(nodes["mask"], 2, {})
    task.check_head(model, nodes)
    _check_tables(model, bundle)


def check_dynamic(end: ov.Output, name: str, kind: ov.Type = ov.Type.f32) -> None:
    """Check that an input or output of the graph has this type and two dynamic dimensions.

    Raises:
        BundleFormatError: Its type or shape differs.
    """
    shape = end.get_partial_shape()
    if end.get_element_type() != kind or shape.rank != ov.Dimension(2) or any(d.is_static for d in shape):
        raise BundleFormatError(
            f"{name} of the graph is {end.get_element_type()} of shape {shape}, but must be {kind} with two dynamic "
            "dimensions"
        )


def check_node(node: ov.Node, rank: int, sizes: Mapping[int, int]) -> None:
    """Check that a node has a single float32 output with this number of dimensions and these sizes.

    Args:
        node: A node of a graph without token selection.
        rank: Number of dimensions of its output.
        sizes: Required sizes by index of the dimension; other dimensions may have any size.

    Raises:
        BundleFormatError: The number of outputs, the type or the shape differs.
    """
    shape = node.get_output_partial_shape(0)
    fits = shape.rank == ov.Dimension(rank) and all(shape[k] == ov.Dimension(size) for k, size in sizes.items())
    if len(node.outputs()) != 1 or node.get_output_element_type(0) != ov.Type.f32 or not fits:
        wanted = ", ".join(str(sizes.get(k, "?")) for k in range(rank))
        raise BundleFormatError(
            f"the node {node.get_friendly_name()} of the graph is {node.get_output_element_type(0)} of shape {shape}, "
            f"but config.json needs f32 [{wanted}]; export the checkpoint again"
        )


def _check_names(ends: Sequence[ov.Output], names: Sequence[str], what: str) -> None:
    found = {tuple(sorted(end.get_names())) for end in ends}
    if len(found) != len(ends) or found != {(name,) for name in names}:
        raise BundleFormatError(f"the graph has the {what} {sorted(found)}, but needs {list(names)}")


def _check_tables(model: ov.Model, bundle: Bundle) -> None:
    """Check that ids, types and positions cannot lie outside the tables that they are looked up in."""
    needed = {"input_ids": bundle.vocab_size, "token_type_ids": bundle.type_vocab_size}
    looked_up = set()
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Gather" and (source := producers(node)[1].get_friendly_name()) in needed:
            looked_up.add(source)
            _check_rows(producers(node)[0], needed[source], source)
        elif node.get_type_name() == "Slice":
            _check_rows(producers(node)[0], bundle.max_length, "positions")
    if missing := needed.keys() - looked_up:
        raise BundleFormatError(f"the graph has no embedding table for {sorted(missing)}")


def _check_rows(table: ov.Node, rows: int, what: str) -> None:
    shape = table.get_output_partial_shape(0)
    if table.get_type_name() != "Constant" or len(shape) != 2 or shape[0] != ov.Dimension(rows):
        raise BundleFormatError(f"the table of {what} has shape {shape}, but config.json states {rows} rows")
