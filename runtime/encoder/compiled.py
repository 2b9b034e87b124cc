"""Thread-safe compiled graphs, and an LRU cache of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt
import openvino as ov

from dynamic_tinybert.runtime.common.errors import InferenceError

from .fair_pool import FairPool
from .forking import survive_forks
from .gate import gate
from .joined_graph import JoinedGraphRequests

Arrays = Mapping[str, npt.NDArray[Any]]
"""Arrays by the name of a graph's input or output; the graph decides their types and shapes."""


class CompiledGraph:
    """A compiled model with a pool of requests, each used by one caller at a time, in the order of their calls.

    In a forked process the model is compiled again on first use, as the parent's threads do not exist there.
    """

    def __init__(self, compile_model: Callable[[], ov.CompiledModel | JoinedGraphRequests]) -> None:
        """Compile the model.

        Args:
            compile_model: Compiles the model, or prepares one that runs without OpenVINO's CPU plugin. It is kept, and
                called again in forked processes.
        """
        self._compile = compile_model
        self._lock = threading.Lock()
        self._requests: _Requests | JoinedGraphRequests | None = None
        with gate:
            self._requests = _requests(compile_model())
            survive_forks(self)

    def infer(self, inputs: Arrays) -> Arrays:
        """Run the graph once, after waiting for a free request. Returns copies of the outputs by name.

        Raises:
            InferenceError: OpenVINO or an op failed.
        """
        with gate:
            return self._current().infer(inputs)

    @property
    def parallel(self) -> int:
        """Number of requests that run at once; further ones wait."""
        with gate:
            return self._current().count

    def abandon(self) -> object:
        """In a forked process: give up the parent's compiled model and return it; it must never be destroyed there."""
        requests, self._requests = self._requests, None
        return requests

    def _current(self) -> _Requests | JoinedGraphRequests:
        with self._lock:
            if self._requests is None:
                self._requests = _requests(self._compile())
            return self._requests


def _requests(compiled: ov.CompiledModel | JoinedGraphRequests) -> _Requests | JoinedGraphRequests:
    return compiled if isinstance(compiled, JoinedGraphRequests) else _Requests(compiled)


class _Requests:
    """The requests of one compiled model."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._inputs = {name: k for k, port in enumerate(compiled.inputs) for name in port.get_names()}
        self._outputs = [output.get_any_name() for output in compiled.outputs]
        self.count: int = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._requests = FairPool(compiled.create_infer_request() for _ in range(self.count))

    def infer(self, inputs: Arrays) -> Arrays:
        return self._requests.use(lambda request: self._run(request, inputs))

    def _run(self, request: ov.InferRequest, inputs: Arrays) -> Arrays:
        try:
            for name, array in inputs.items():  # set_tensor(name) and start_async(inputs) do the same, more slowly
                request.set_input_tensor(self._inputs[name], ov.Tensor(array, shared_memory=True))
            # Not infer(): with one thread, OpenVINO 2026.4 loses the error of a synchronous request.
            request.start_async()
            request.wait()
            return {name: request.get_output_tensor(k).data.copy() for k, name in enumerate(self._outputs)}
        except BaseException as error:
            # A signal handler may raise at any call. The request may still read the inputs, and must not be lent again.
            try:
                _await_end(request)
            except BaseException:
                _await_end(request)
                raise
            if isinstance(error, RuntimeError):
                raise InferenceError(f"running the graph failed: {error}") from error
            raise


def _await_end(request: ov.InferRequest) -> None:
    """Wait until a request does not run, however often a signal handler raises meanwhile."""
    while True:
        try:
            request.wait()
            return
        except RuntimeError:  # it has failed, and ended
            return
        except BaseException:
            continue


class CompiledGraphs:
    """LRU cache of graphs: each is compiled on first use; beyond `limit` the least recently used is evicted."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._graphs: OrderedDict[object, _Slot] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], CompiledGraph]) -> CompiledGraph:
        """The graph for `key`; of concurrent callers with a new key the first calls `make`, and the others wait."""
        with gate:  # so that no lock is held at a fork
            return self._get(key, make)

    def _get(self, key: object, make: Callable[[], CompiledGraph]) -> CompiledGraph:
        with self._lock:
            slot = self._graphs.setdefault(key, _Slot())
            self._graphs.move_to_end(key)
        with slot.lock:
            if slot.graph is None:
                try:
                    slot.graph = make()
                except BaseException:
                    with self._lock:
                        if self._graphs.get(key) is slot:
                            del self._graphs[key]
                    raise
                with self._lock:
                    while len(self._graphs) > self.limit:
                        self._graphs.popitem(last=False)
            return slot.graph

    def __len__(self) -> int:
        return len(self._graphs)

    def __contains__(self, key: object) -> bool:
        """Whether the graph for `key` is compiled."""
        slot = self._graphs.get(key)
        return slot is not None and slot.graph is not None


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.graph: CompiledGraph | None = None
