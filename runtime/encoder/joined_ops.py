"""Join the extension's ops of a graph into one node, which evaluates them itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set

import openvino as ov
from openvino import opset13

from .extension_library import node_factory
from .graph_walk import producers, replace_output
from .named_nodes import NamedNodes

_OPS = {
    "Attention",
    "AttentionWithSignificance",
    "ContextSignificance",
    "EncoderLayers",
    "FloatLinear",
    "LearntSignificance",
    "QuantizedEmbeddings",
    "QuantizedLinears",
    "RestoreLogits",
    "SelectTokens",
}
_BETWEEN = {
    "Add",
    "Convert",
    "CumSum",
    "Equal",
    "Gather",
    "Greater",
    "LogicalAnd",
    "LogicalOr",
    "Multiply",
    "ReduceMax",
    "ReduceSum",
    "Squeeze",
    "Subtract",
}
_PRODUCTS = {"EncoderLayers", "QuantizedLinears"}
_REPLACED = {ov.Type.i64: ov.Type.i32, ov.Type.boolean: ov.Type.u8}


def join_ops(model: ov.Model) -> None:
    """Replace the ops of the extension and the copies between them by one node, or one on each side of other nodes.

    For each node of a graph whose shapes are not known, OpenVINO's CPU plugin infers shapes, plans memory and wakes its
    threads at every call, and nothing of this becomes less when tokens are dropped. Numbers stay the same to the bit.

    Args:
        model: A graph that is about to be compiled. One without products of 8-bit integers is not changed.
    """
    if not _PRODUCTS.isdisjoint(node.get_type_name() for node in model.get_ordered_ops()):
        for nodes in _regions(model):
            types = [node.get_type_name() for node in nodes]
            if len(_OPS.intersection(types)) > 1 and not _PRODUCTS.isdisjoint(types):
                _join(model, nodes)
        model.validate_nodes_and_infer_types()


def _regions(model: ov.Model) -> list[list[ov.Node]]:
    """Nodes that may be joined, such that no path leads out of a region and back into it."""
    regions: defaultdict[int, list[ov.Node]] = defaultdict(list)
    region_of: dict[str, int] = {}  # of other nodes, the first region that may read them
    joinable: set[str] = set()
    for node in model.get_ordered_ops():
        name, read = node.get_friendly_name(), [own.get_friendly_name() for own in producers(node)]
        if node.get_type_name() in _OPS | _BETWEEN:
            joinable.add(name)
            region_of[name] = max((region_of[own] for own in read), default=0)
            regions[region_of[name]].append(node)
        else:
            region_of[name] = max((region_of[own] + (own in joinable) for own in read), default=0)
    return list(regions.values())


def _join(model: ov.Model, nodes: Sequence[ov.Node]) -> None:
    names = {node.get_friendly_name() for node in nodes}
    copies = NamedNodes(model.clone())

    def copy_of(value: ov.Output) -> ov.Output:
        return copies[value.get_node().get_friendly_name()].output(value.get_index())

    inputs, parameters = [], []
    for value in _values_read(nodes, names):
        inputs.append(_plain(value))
        parameters.append(opset13.parameter(value.get_partial_shape(), inputs[-1].get_element_type()))
        replace_output(copy_of(value), _as_type(parameters[-1].output(0), value.get_element_type()))
    written = [output for node in nodes for output in node.outputs() if _is_read_outside(output, names)]
    body = {"parameters": parameters, "results": [opset13.result(_plain(copy_of(value))) for value in written]}
    joined = node_factory().create("JoinedOps", inputs, {"body": body})
    for value, plain in zip(written, joined.outputs(), strict=True):
        output = _as_type(plain, value.get_element_type())
        output.get_tensor().set_names(value.get_tensor().get_names())
        replace_output(value, output)


def _plain(value: ov.Output) -> ov.Output:
    """The value in a type that OpenVINO's CPU plugin does not replace by another one."""
    return _as_type(value, _REPLACED.get(value.get_element_type(), value.get_element_type()))


def _as_type(value: ov.Output, element_type: ov.Type) -> ov.Output:
    return value if value.get_element_type() == element_type else opset13.convert(value, element_type).output(0)


def _values_read(nodes: Sequence[ov.Node], names: Set[str]) -> list[ov.Output]:
    """What nodes read of others, without constants."""
    values = [value for node in nodes for value in node.input_values()]
    outside = [value for value in values if value.get_node().get_friendly_name() not in names]
    return list(dict.fromkeys(value for value in outside if value.get_node().get_type_name() != "Constant"))


def _is_read_outside(output: ov.Output, names: Set[str]) -> bool:
    return any(target.get_node().get_friendly_name() not in names for target in output.get_target_inputs())
