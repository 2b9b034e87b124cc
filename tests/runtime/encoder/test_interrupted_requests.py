"""A signal handler that raises while a graph runs: nobody gets a request that still runs, or loses what it reads."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from openvino import opset13

from dynamic_tinybert.runtime.common.errors import InferenceError
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.compiled import CompiledGraph


class InterruptedHereError(BaseException):
    """What the signal handlers of these tests raise."""


class Interrupted:
    """A request of OpenVINO; a signal handler raises after its calls as told."""

    def __init__(self, request: ov.InferRequest) -> None:
        self._request = request
        self.raises: dict[str, list[BaseException | None]] = {}
        self.waited = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - OpenVINO's
        return getattr(self._request, name)

    def start_async(self) -> None:
        self._request.start_async()
        self._interrupt("start_async")

    def wait(self) -> None:
        self._interrupt("wait")  # as if it had come before the end
        self._request.wait()
        self.waited += 1

    def _interrupt(self, name: str) -> None:
        if self.raises.get(name) and (error := self.raises[name].pop(0)):
            raise error


@pytest.fixture
def graph() -> CompiledGraph:
    """A graph that takes a while: a few products of large matrices."""
    x = opset13.parameter([-1, 512], np.float32, name="x")
    x.output(0).get_tensor().set_names({"x"})
    y = x
    for _ in range(12):
        y = opset13.matmul(y, np.eye(512, dtype=np.float32), False, False)
    y.output(0).get_tensor().set_names({"y"})
    model = ov.Model([y.output(0)], [x])
    return CompiledGraph(lambda: extension_library.core().compile_model(model, "CPU", {"NUM_STREAMS": 1}))


def given(rows: int, value: float) -> Mapping[str, npt.NDArray[np.float32]]:
    return {"x": np.full((rows, 512), value, np.float32)}


def interrupted(graph: CompiledGraph, **raises: list[BaseException | None]) -> Interrupted:
    pool: Any = graph._current()._requests
    (request,) = pool._idle
    wrapped = Interrupted(request)
    wrapped.raises = raises
    pool._idle[:] = [wrapped]
    return wrapped


@pytest.mark.parametrize(
    "raises",
    [
        {"start_async": [InterruptedHereError()]},
        {"wait": [InterruptedHereError()]},
        {"start_async": [InterruptedHereError()], "wait": [InterruptedHereError(), KeyboardInterrupt()]},
    ],
)
def test_a_request_that_runs_on_is_waited_for(
    graph: CompiledGraph, raises: dict[str, list[BaseException | None]]
) -> None:
    request = interrupted(graph, **raises)
    with pytest.raises(InterruptedHereError):
        graph.infer(given(2000, 1))
    assert request.waited == 1
    assert not any(request.raises.values())
    assert request.wait_for(0)
    assert graph.infer(given(2, 3))["y"].tolist() == np.full((2, 512), 3).tolist()


@pytest.mark.parametrize("make", [InterruptedHereError, KeyboardInterrupt])
def test_the_inputs_live_until_the_request_has_ended(graph: CompiledGraph, make: type[BaseException]) -> None:
    """The result is read from the request after the call: it is that of the inputs, which nobody else holds."""
    request = interrupted(graph, start_async=[make()])
    with pytest.raises(make):
        graph.infer(given(2000, 7))
    assert (request.get_output_tensor(0).data == 7).all()


def test_an_error_of_a_handler_is_no_reason_to_lend_a_request_that_runs(graph: CompiledGraph) -> None:
    request = interrupted(graph, start_async=[RuntimeError("of a handler")])
    with pytest.raises(InferenceError, match="of a handler"):
        graph.infer(given(2000, 1))
    assert request.waited == 1
    assert graph.infer(given(2, 3))["y"].shape == (2, 512)
