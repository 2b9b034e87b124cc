"""Check that a graph is the encoder that its bundle describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import openvino as ov

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.common.errors import BundleFormatError

from .graph_walk import producer_types, producers
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
        _check_one_state(nodes, layer)
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
    """Check that ids, types, positions and indices cannot lie outside what they are looked up in."""
    needed = {"input_ids": bundle.vocab_size, "token_type_ids": bundle.type_vocab_size}
    ids = {name: model.input(name).get_node().get_friendly_name() for name in needed}
    looked_up = set()
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Slice":
            _check_rows(producers(node)[0], bundle.max_length, "positions")
        elif node.get_type_name() == "Gather":
            table, indices, axis = producers(node)
            which = [name for name, own in ids.items() if own == indices.get_friendly_name()]
            looked_up.update(which)
            if which and axis.data.item() == 0:
                _check_rows(table, needed[which[0]], which[0])
            else:
                _check_indices(node)
    if missing := needed.keys() - looked_up:
        raise BundleFormatError(f"the graph has no embedding table for {sorted(missing)}")


def _check_indices(gather: ov.Node) -> None:
    """Check that a Gather of no embeddings has constant indices that are in what it reads, however short inputs are."""
    _, indices, axis = producers(gather)
    shape, own_axis = gather.get_input_partial_shape(0), axis.data.item()
    if indices.get_type_name() == "Constant" and shape.rank.is_static and -1 <= own_axis < len(shape):
        size = shape[own_axis % len(shape)]
        if all(0 <= index < (1 if size.is_dynamic else size.get_length()) for index in indices.data.ravel().tolist()):
            return
    raise BundleFormatError(
        f"the node {gather.get_friendly_name()} of the graph gathers by indices that are computed or may be out of "
        "range; export the checkpoint again"
    )


def _check_one_state(nodes: NamedNodes, layer: int) -> None:
    """Check that queries, keys and values are of the same tokens: OpenVINO's attention does not compare lengths."""
    heads = nodes[f"layer.{layer}.attention"].input_values()[:3]
    parts = [f"layer.{layer}.{part}" for part in ("query", "key", "value")]
    states = [_multiplied(nodes[part]) for part in parts]
    if [_before_split(value.get_node()) for value in heads] != parts or None in states or len(set(states)) > 1:
        raise BundleFormatError(
            f"queries, keys and values of layer {layer} are not products of one state, split by heads; export the "
            "checkpoint again"
        )


def _before_split(node: ov.Node) -> str | None:
    """Name of the node whose last axis is split by heads; None if this node is no such split."""
    if producer_types(node) != ["Reshape", "Constant"] or node.get_type_name() != "Transpose":
        return None
    (split, order), (source, shape) = producers(node), producers(producers(node)[0])
    kept = order.data.tolist() == [0, 2, 1, 3] and shape.data.tolist()[:2] == [0, 0]
    return source.get_friendly_name() if kept and split.get_attributes()["special_zero"] else None


def _multiplied(biased: ov.Node) -> str | None:
    """Name of the state of which a node is a product with a bias; None if it has other tokens than that, or may."""
    if biased.get_type_name() != "Add" or not _is_by_columns(biased):
        return None
    node = producers(biased)[0]
    if node.get_type_name() != "MatMul" or node.get_attributes()["transpose_a"]:
        return None
    weights = node.get_input_partial_shape(1)
    if weights.is_dynamic or len(weights) != 2:
        return None
    while (node := producers(node)[0]).get_type_name() in ("FakeQuantize", "Multiply"):
        if not _is_by_columns(node):
            return None
    return str(node.get_friendly_name())


def _is_by_columns(node: ov.Node) -> bool:
    """Whether a node changes no size of its first input, as all others are broadcast over the tokens."""
    shapes = [value.get_partial_shape() for value in node.input_values()[1:]]
    return all(s.is_static and len(s) <= 3 and all(size == 1 for size in s.to_shape()[:-1]) for s in shapes)


def _check_rows(table: ov.Node, rows: int, what: str) -> None:
    shape = table.get_output_partial_shape(0)
    if table.get_type_name() != "Constant" or len(shape) != 2 or shape[0] != ov.Dimension(rows):
        raise BundleFormatError(f"the table of {what} has shape {shape}, but config.json states {rows} rows")
