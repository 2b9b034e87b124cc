"""Walk along the edges of a graph, and rewire them."""

from __future__ import annotations

import openvino as ov


def producers(node: ov.Node) -> list[ov.Node]:
    """The nodes that produce a node's inputs, in the order of the inputs."""
    return [value.get_node() for value in node.input_values()]


def producer_types(node: ov.Node) -> list[str]:
    """Type names of the nodes that produce a node's inputs."""
    return [producer.get_type_name() for producer in producers(node)]


def replace_output(output: ov.Output, replacement: ov.Output) -> None:
    """Make all consumers of an output read another one instead."""
    for target in output.get_target_inputs():
        target.replace_source_output(replacement)
