"""Run a graph in which one joined node computes everything, without OpenVINO's CPU plugin."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Mapping
from itertools import chain
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import openvino as ov

from dynamic_tinybert.runtime.common.errors import InferenceError

from . import extension_library
from .fair_pool import FairPool
from .graph_walk import producers

PROGRAM = "program"
"""Name in a node's runtime information of the address of what it evaluates."""

_AROUND = {"Parameter", "Convert", "Constant", "Result"}


class JoinedGraph(NamedTuple):
    """What is known of a graph in which one node of `join_ops` computes everything.

    Attributes:
        node: The node.
        inputs: For each input of the node, in order: the name of the graph's input that it reads, the type of its
            numbers, and their number of dimensions.
        output_types: For each output of the node, the type of its numbers and their number of dimensions.
        outputs: For each output of the graph, the index of the node's output.
    """

    node: ov.Node
    inputs: list[tuple[str, np.dtype[Any], int]]
    output_types: list[tuple[np.dtype[Any], int]]
    outputs: dict[str, int]


def as_joined(graph: ov.Model) -> JoinedGraph | None:
    """The parts of a graph in which one joined node computes everything; None of any other graph.

    Args:
        graph: A graph after `join_ops`.
    """
    nodes = [node for node in graph.get_ordered_ops() if node.get_type_name() not in _AROUND]
    if [node.get_type_name() for node in nodes] != ["JoinedOps"]:
        return None
    (node,) = nodes
    read = [_input_read(value) for value in node.input_values()]
    written = [result.input_value(0) for result in graph.get_results()]
    inputs = [name for name in read if name is not None]
    values = [*node.input_values(), *node.outputs()]
    if any(value.get_partial_shape().rank.is_dynamic for value in values) or len(inputs) < len(read):
        return None
    if any(value.get_node().get_type_name() != "JoinedOps" for value in written):
        return None
    return JoinedGraph(
        node,
        [(name, *_type_and_rank(value)) for name, value in zip(inputs, node.input_values(), strict=True)],
        [_type_and_rank(value) for value in node.outputs()],
        {output.get_any_name(): value.get_index() for output, value in zip(graph.outputs, written, strict=True)},
    )


def forget_programs(graph: ov.Model) -> None:
    """Remove the addresses of programs from a graph: OpenVINO looks compiled graphs up by all that a graph says."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "JoinedOps" and PROGRAM in node.get_rt_info():
            del node.get_rt_info()[PROGRAM]


def _input_read(value: ov.Output) -> str | None:
    """Name of the graph's input that this value is, as it is or with integers of 32 bits instead of 64."""
    node = value.get_node()
    if node.get_type_name() == "Convert" and value.get_element_type() == ov.Type.i32:
        (node,) = producers(node)
        if node.get_element_type() != ov.Type.i64:
            return None
    return node.output(0).get_any_name() if node.get_type_name() == "Parameter" else None


def _type_and_rank(value: ov.Output) -> tuple[np.dtype[Any], int]:
    return np.dtype(value.get_element_type().to_dtype()), len(value.get_partial_shape())


class JoinedGraphRequests:
    """The requests of such a graph: each is used by one caller at a time and runs in the caller's thread and others.

    For such a graph OpenVINO's CPU plugin would take 0.1 ms and more at each call, and 30 ms and 29 MiB to be loaded.
    """

    def __init__(self, graph: JoinedGraph, threads: int, count: int) -> None:
        """Prepare `count` requests with up to `threads` threads each."""
        self.count = count
        self._graph = graph
        self._requests = FairPool([_Request(graph, threads) for _ in range(count)])

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run the graph once, after waiting for a free request. Returns the outputs by name.

        Raises:
            InferenceError: An op failed.
        """
        arrays = []
        for name, dtype, rank in self._graph.inputs:
            arrays.append(np.asarray(inputs[name], dtype, order="C"))
            if arrays[-1].ndim != rank:
                raise InferenceError(f"{name} must have {rank} dimensions, not the shape {arrays[-1].shape}")
        outputs = self._requests.use(lambda request: request.run(arrays))
        return {name: outputs[index] for name, index in self._graph.outputs.items()}


class _Request:
    """A runner of the extension, with the memory of its outputs."""

    def __init__(self, graph: JoinedGraph, threads: int) -> None:
        library = extension_library.library()
        self._run, self._copy_outputs = library.dynamic_tinybert_run, library.dynamic_tinybert_copy_outputs
        self._run.restype = ctypes.c_char_p
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        self._copy_outputs.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self._delete = library.dynamic_tinybert_delete_runner
        new = library.dynamic_tinybert_runner
        new.restype = ctypes.c_void_p
        program = graph.node.get_rt_info()[PROGRAM].value
        self._runner: int | None = new(ctypes.c_void_p(program), threads)
        if self._runner is None:
            raise InferenceError(f"no request with {threads} threads could be made; is there any memory left?")
        self._output_types = graph.output_types
        self._room = array("q", [0] * sum(rank for _, rank in graph.output_types))
        self._bytes = 0  # that outputs probably take

    def __del__(self) -> None:
        if runner := getattr(self, "_runner", None):
            self._delete(ctypes.c_void_p(runner))

    def run(self, inputs: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        # What comes after the call runs with cold caches, at some ten times its usual time, so little is left for then.
        tensors = array("q", chain.from_iterable((tensor.ctypes.data, *tensor.shape) for tensor in inputs))
        start = len(tensors)
        tensors += self._room
        memory = np.empty(self._bytes, np.uint8)
        error = self._run(self._runner, tensors.buffer_info()[0], memory.ctypes.data, self._bytes)
        if error is not None:
            raise InferenceError(f"running the graph failed: {error.decode(errors='replace')}")
        ends, shapes, end = [], [], 0
        for dtype, rank in self._output_types:
            shape = tensors[start : start + rank].tolist()
            start += rank
            end += prod(shape) * dtype.itemsize
            shapes.append(shape)
            ends.append(end)
        if end > len(memory):
            memory = np.empty(end, np.uint8)
            self._copy_outputs(self._runner, memory.ctypes.data)
        if end > self._bytes or 4 * end < self._bytes:  # outputs must not hold much more than they need
            self._bytes = end
        outputs, first = [], 0
        for shape, end, (dtype, _) in zip(shapes, ends, self._output_types, strict=True):
            outputs.append(np.ndarray(shape, dtype, memory, first))
            first = end
        return outputs
