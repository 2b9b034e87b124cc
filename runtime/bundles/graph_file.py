"""Checks of a bundle's graph before OpenVINO reads it, because a bundle may come from anyone."""

from __future__ import annotations

import math
import reprlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.common.errors import BundleCorruptError, BundleFormatError

_LARGEST = 64 * 2**20  # bytes of XML
_MOST_NODES = 100_000

# Only the operations that the exporter writes (export/ir.py): others of OpenVINO can read files, loop forever, or
# structure a graph in ways that our rewriting does not expect.
_OPERATIONS = {
    "Add",
    "Const",
    "Convert",
    "FakeQuantize",
    "Gather",
    "Gelu",
    "MVN",
    "MatMul",
    "Multiply",
    "Parameter",
    "Reshape",
    "Result",
    "ScaledDotProductAttention",
    "ShapeOf",
    "Slice",
    "Squeeze",
    "Subtract",
    "Tanh",
    "Transpose",
    "Unsqueeze",
}
_CONSTANT_INPUTS = {  # by kind of node; as the exporter writes them
    "FakeQuantize": (1, 2, 3, 4),
    "Gather": (2,),
    "MVN": (1,),
    "Reshape": (1,),
    "Slice": (0, 1, 3, 4),
    "Squeeze": (1,),
    "Transpose": (1,),
    "Unsqueeze": (1,),
}
_INTEGERS = ("i32", "i64")
_LARGEST_INTEGER = 2**16  # sizes, axes and indices; much larger ones crash OpenVINO 2026.4
_BYTES = {"boolean": 1, "i8": 1, "u8": 1, "f16": 2, "bf16": 2, "f32": 4, "i32": 4, "i64": 8}


def check_graph_file(xml: Path, weights: Path) -> None:
    """Check that a graph holds only operations that the exporter writes, and constants within its weights file.

    Raises:
        BundleCorruptError: The graph file is not XML, or a constant lies outside the weights file.
        BundleFormatError: The file is not a graph, is too large, holds operations that the exporter does not write, or
            computes axes or shapes.
    """
    root = _read(xml)
    layers, edges = root.find("layers"), root.find("edges")
    if root.tag != "net" or root.get("version") not in ("10", "11") or layers is None or edges is None:
        raise BundleFormatError(f"{xml} is not an OpenVINO IR of version 10 or 11; export the checkpoint again")
    if len(layers) > _MOST_NODES or len(edges) > 10 * _MOST_NODES:
        raise BundleFormatError(f"{xml} has {len(layers)} nodes and {len(edges)} edges, more than any encoder has")
    constants = np.memmap(weights, np.uint8, "r") if weights.stat().st_size else np.empty(0, np.uint8)
    names = set()
    for layer in layers:
        name, kind, version = (layer.get(key, "") for key in ("name", "type", "version"))
        if layer.tag != "layer" or kind not in _OPERATIONS or not version.startswith("opset"):
            raise BundleFormatError(
                f"{xml}: node {reprlib.repr(name)} is a {reprlib.repr(kind)} of {reprlib.repr(version)}, which is not "
                f"allowed in bundles; allowed are {', '.join(sorted(_OPERATIONS))} of OpenVINO's opsets"
            )
        if name in names:
            raise BundleFormatError(f"{xml} has two nodes named {reprlib.repr(name)}; export the checkpoint again")
        names.add(name)
        if kind == "Const":
            _check_constant(f"{xml}: constant {reprlib.repr(name)}", layer, constants)
    _check_constant_inputs(xml, layers, edges)


def _check_constant_inputs(xml: Path, layers: ElementTree.Element, edges: ElementTree.Element) -> None:
    """Check that axes, orders and shapes are constants: OpenVINO 2026.4 reads out of bounds at some computed ones."""
    kinds = {layer.get("id"): layer.get("type") for layer in layers}
    sources = {(edge.get("to-layer"), edge.get("to-port")): kinds.get(edge.get("from-layer")) for edge in edges}
    plain = all(_is_plain(text) for text in (*kinds, *(end for ends in sources for end in ends)))
    if len(kinds) != len(layers) or len(sources) != len(edges) or not plain:  # OpenVINO could read other edges than we
        raise BundleFormatError(f"{xml} has nodes or edges of ambiguous ids; export the checkpoint again")
    for layer in layers:
        name, kind = reprlib.repr(layer.get("name")), layer.get("type", "")
        ports, data = layer.find("input"), layer.find("data")
        if ports is not None and [port.get("id") for port in ports] != [str(k) for k in range(len(ports))]:
            raise BundleFormatError(f"{xml}: the inputs of node {name} are not numbered; export the checkpoint again")
        for port in _CONSTANT_INPUTS.get(kind, ()):
            if sources.get((layer.get("id"), str(port))) != "Const":
                raise BundleFormatError(f"{xml}: input {port} of the {kind} {name} must be a constant")
        if kind == "Gather" and data is not None and data.get("batch_dims", "0") != "0":
            raise BundleFormatError(f"{xml}: the Gather {name} must have batch_dims 0")


def _is_plain(text: str | None) -> bool:
    """Whether this is a non-negative decimal, written in the only usual way."""
    return text is not None and text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")


def _read(xml: Path) -> ElementTree.Element:
    if (size := xml.stat().st_size) > _LARGEST:
        raise BundleFormatError(f"{xml} has {size} bytes, but at most {_LARGEST} are allowed")
    text = xml.read_bytes()
    if b"\0" in text or b"<!" in text.replace(b"<!--", b""):  # another encoding could hide such a declaration
        raise BundleFormatError(
            f"{xml} declares a document type or entities, or is not UTF-8; export the checkpoint again"
        )
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: an unknown encoding
        raise BundleCorruptError(
            f"{xml} cannot be read as XML: {error}; export or download the bundle again"
        ) from error


def _check_constant(what: str, layer: ElementTree.Element, constants: npt.NDArray[np.uint8]) -> None:
    data = layer.find("data")
    values = {} if data is None else data.attrib
    kind = values.get("element_type", "")
    if kind not in _BYTES:
        raise BundleFormatError(f"{what} is of type {reprlib.repr(kind)}, not one of {', '.join(sorted(_BYTES))}")
    try:
        shape = [_number(number) for number in values.get("shape", "").split(",") if number.strip()]
        offset, length = _number(values.get("offset", "")), _number(values.get("size", ""))
    except ValueError as error:
        raise BundleFormatError(
            f"{what} has a shape, offset or size that is not a non-negative integer: {error}"
        ) from error
    if length != math.prod(shape) * _BYTES[kind]:
        raise BundleFormatError(
            f"{what} has {length} bytes, which does not fit its type {kind} and shape {reprlib.repr(shape)}"
        )
    if offset + length > (size := len(constants)):
        raise BundleCorruptError(
            f"{what} spans bytes {offset} to {offset + length} of a file of {size} bytes; export or download "
            "the bundle again"
        )

    if kind in _INTEGERS:
        integers = constants[offset : offset + length].view(kind.replace("i", "int"))
        if integers.size and not (integers.min() >= -1 and integers.max() <= _LARGEST_INTEGER):
            raise BundleFormatError(
                f"{what} holds {integers.min()} to {integers.max()}, but sizes, axes and indices must be at least "
                f"-1 and at most {_LARGEST_INTEGER}"
            )


def _number(text: str) -> int:
    """Parse an unsigned decimal; int() alone would also accept signs."""
    if not (text.strip().isascii() and text.strip().isdigit()):
        raise ValueError(reprlib.repr(text))
    return int(text)
