"""Cut a graph with token selection after one of its layers, into two graphs that run one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

import openvino as ov
from openvino import opset13 as ops

from dynamic_tinybert.runtime.common.errors import BundleFormatError

from .graph import KEPT
from .graph_walk import producers, replace_output
from .named_nodes import NamedNodes

STATE = "carried.state"
"""Name of the states that leave the last layer before the cut, float32 [B, n, H]."""

SIGNIFICANCE, PROTECTED = "scorer.significance", "scorer.protected"
"""Outputs of the first graph if it has a scorer: what the last one gives to each token, and which are protected."""

_PADDING = -10000.0


@dataclass(frozen=True)
class Carried:
    """A value of each row that the first graph gives.

    Attributes:
        name: Name of the output, and of the input of the later graph if this reads it.
        of_tokens: Whether the second axis counts tokens; the first one counts rows.
        selection: The layer whose kept tokens these are; None for the tokens of the input.
        filler: What stands where a row has no more tokens.
    """

    name: str
    of_tokens: bool
    selection: int | None
    filler: float


@dataclass(frozen=True)
class CutGraph:
    """A graph in two parts.

    Attributes:
        first: Embeddings and the layers before the cut.
        later: The layers behind the cut and the head. Its inputs are outputs of the first graph.
        values: The outputs of the first graph: what the later one reads, `kept_tokens.{layer}` of the layers before
            the cut, and, if there is one, what the last scorer before it computes.
    """

    first: ov.Model
    later: ov.Model
    values: tuple[Carried, ...]


def cut_graph(model: ov.Model, layer: int) -> CutGraph:
    """Cut a graph after a layer. Both parts, one after the other, compute what the whole does.

    Args:
        model: A graph of one length configuration, from `with_selection`; it is not changed.
        layer: The last layer before the cut; at least one must follow it.

    Raises:
        BundleFormatError: The layer is not in the graph, or something other than values of rows goes over the cut.
    """
    first, later = model.clone(), model.clone()
    state_name = f"layer.{layer}.output"
    behind = _names_behind(model, state_name)
    names = _given_names(first, state_name, behind)
    parameters, targets = [], NamedNodes(later)
    for node, index in _crossing(first, behind):
        name = names.setdefault((node, index), f"carried.{node}.{index}")
        target = targets[node].output(index)
        parameter = ops.parameter(target.get_partial_shape(), target.get_element_type(), name=name)
        parameter.output(0).get_tensor().set_names({name})
        parameters.append(parameter)
        replace_output(target, parameter.output(0))
    sources = NamedNodes(first)
    layers = {node: int(name.removeprefix(KEPT)) for (node, _), name in names.items() if name.startswith(KEPT)}
    values = tuple(_described(name, sources[node].output(index), layers) for (node, index), name in names.items())
    results = [_result(sources[node].output(index), name) for (node, index), name in names.items()]
    last = [result for result in later.get_results() if result.get_friendly_name() in behind]
    return CutGraph(ov.Model(results, first.get_parameters(), "first"), ov.Model(last, parameters, "later"), values)


def _names_behind(model: ov.Model, state_name: str) -> set[str]:
    """Names of the nodes that depend on the state."""
    behind: set[str] = set()
    for node in model.get_ordered_ops():
        own = [producer.get_friendly_name() for producer in producers(node)]
        if state_name in own or not behind.isdisjoint(own):
            behind.add(node.get_friendly_name())
    if not behind:
        raise BundleFormatError(f"the graph has no node named {state_name!r} to cut it after; export the model again")
    return behind


def _given_names(model: ov.Model, state_name: str, behind: Set[str]) -> dict[tuple[str, int], str]:
    """Names of the first graph's outputs that have a meaning of their own, by node and index of the node's output."""
    names = {(state_name, 0): STATE}
    for node in model.get_ordered_ops():
        if node.get_friendly_name() in behind:
            continue
        if node.get_type_name() == "Result":
            names[_key(node.input_value(0))] = node.get_friendly_name()
        if node.get_type_name() == "LearntSignificance":  # the last one remains
            names = {key: name for key, name in names.items() if name not in (SIGNIFICANCE, PROTECTED)}
            names |= {_key(node.output(0)): SIGNIFICANCE, _key(node.input_value(1)): PROTECTED}
    return names


def _crossing(model: ov.Model, behind: Set[str]) -> list[tuple[str, int]]:
    """The values before the cut that nodes behind it read, by node and index of the node's output."""
    crossing: dict[tuple[str, int], None] = {}
    variable: set[str] = set()  # nodes that depend on the input
    for node in model.get_ordered_ops():
        own = (producer.get_friendly_name() for producer in producers(node))
        if node.get_type_name() == "Parameter" or not variable.isdisjoint(own):
            variable.add(node.get_friendly_name())
        if node.get_friendly_name() not in behind:
            continue
        for read in node.input_values():
            value = read
            while value.get_node().get_type_name() == "Unsqueeze":  # a mask, for all heads and queries
                value = value.get_node().input_value(0)
            name, index = _key(value)
            if name in variable and name not in behind:
                crossing[name, index] = None
    return list(crossing)


def _described(name: str, output: ov.Output, layers: Mapping[str, int]) -> Carried:
    """What an output of the first graph is; `layers` by the names of their SelectTokens nodes."""
    node, shape = output.get_node(), output.get_partial_shape()
    if shape.rank.is_dynamic or shape.rank.get_length() < 1 or shape[0].is_static:
        raise BundleFormatError(
            f"the graph cannot be cut: {node.get_friendly_name()} of shape {shape} has no value for each row; export "
            "the checkpoint again"
        )
    is_mask = node.get_friendly_name() == "mask" or (node.get_type_name() == "SelectTokens" and output.get_index() == 1)
    return Carried(name, shape.rank.get_length() > 1, _selection(node, layers), _PADDING if is_mask else 0.0)


def _selection(node: ov.Node, layers: Mapping[str, int]) -> int | None:
    """The layer that has chosen the tokens of a node's output; None if they are those of the input."""
    while (inputs := producers(node)) and node.get_type_name() != "SelectTokens":
        if node.get_type_name() == "Gather" and inputs[1].get_type_name() == "SelectTokens":
            node = inputs[1]
        else:  # rows come from the first input that is not constant
            node = next((n for n in inputs if n.get_type_name() not in ("Constant", "Convert")), inputs[0])
    return layers.get(node.get_friendly_name())


def _key(output: ov.Output) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()


def _result(output: ov.Output, name: str) -> ov.Node:
    output.get_tensor().set_names({name})
    return ops.result(output, name=name)
