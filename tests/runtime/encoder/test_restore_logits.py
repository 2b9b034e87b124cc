from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from openvino import opset15

from dynamic_tinybert.runtime.encoder import extension_library, ops

Array = npt.NDArray[Any]


def head_of(width: int) -> Array:
    return np.random.default_rng(width).standard_normal((2, width + 1), np.float32)


def graph(width: int, layers: int = 2) -> ov.Model:
    """All tokens' states, then states and origins of each of `layers`."""
    inputs = [opset15.parameter([-1, -1, width], np.float32)]
    for _ in range(layers):
        inputs += [opset15.parameter([-1, -1, width], np.float32), opset15.parameter([-1, -1], np.int32)]
    state, *others = (node.output(0) for node in inputs)
    fewer = list(zip(others[::2], others[1::2], strict=True))
    return ov.Model([ops.restore_logits(head_of(width), state, fewer)], inputs)


def compiled(model: ov.Model) -> ov.CompiledModel:
    return extension_library.core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})


def random_inputs(batch: int, length: int, tokens: list[int], width: int) -> list[Array]:
    """In each layer each sequence has other tokens, in order; the last slots of some are fillers."""
    generator = np.random.default_rng(length)
    inputs: list[Array] = [generator.standard_normal((batch, length, width), np.float32)]
    for slots in tokens:
        origins = np.zeros((batch, slots), np.int32)
        for b in range(batch):
            count = max(0, slots - b)
            origins[b, :count] = 1 + np.sort(generator.choice(length, count, replace=False))
        inputs += [generator.standard_normal((batch, slots, width), np.float32), origins]
    return inputs


def logits_of(state: Array, width: int) -> Array:
    head = head_of(width).astype(np.float64)
    found: Array = state.astype(np.float64) @ head[:, :-1].T + head[:, -1]
    return found


@pytest.mark.parametrize("width", [1, 7, 8, 39, 384, 768])
@pytest.mark.parametrize(
    ("batch", "length", "tokens"), [(1, 1, [1]), (1, 171, [90, 60, 20]), (3, 20, [13, 9]), (2, 9, [])]
)
def test_the_last_layer_that_had_a_token_gives_its_logits(
    isa: str, batch: int, length: int, tokens: list[int], width: int
) -> None:
    inputs = random_inputs(batch, length, tokens, width)
    expected = logits_of(inputs[0], width)
    for state, origins in zip(inputs[1::2], inputs[2::2], strict=True):
        for b, i in zip(*np.nonzero(origins), strict=True):
            expected[b, origins[b, i] - 1] = logits_of(state, width)[b, i]
    found = compiled(graph(width, len(tokens)))(inputs)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_survives_saving_and_loading(tmp_path: Path) -> None:
    inputs = random_inputs(2, 20, [9, 5], 64)
    ov.save_model(graph(64), tmp_path / "model.xml", compress_to_fp16=False)
    loaded = compiled(extension_library.core().read_model(tmp_path / "model.xml"))
    np.testing.assert_array_equal(compiled(graph(64))(inputs)[0], loaded(inputs)[0])


@pytest.mark.parametrize("origin", [-1, 21])
def test_refuses_an_origin_outside_the_input(origin: int) -> None:
    inputs = random_inputs(1, 20, [9, 5], 64)
    inputs[2][0, 4] = origin
    request = compiled(graph(64)).create_infer_request()
    request.start_async(inputs)  # with one thread, infer() loses the error
    with pytest.raises(RuntimeError, match=f"origin {origin} is not among the 20 tokens"):
        request.wait()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (([6, 8], [1, 4, 8], [1, 4]), r"a state \(input 1\) has shape \[6,8\]"),
        (([1, 6, 2**60], [1, 4, 8], [1, 4]), "the width of the states is 1152921504606846976; at most 65536"),
        (([1, 6, 9], [1, 4, 9], [1, 4]), r"the head \(input 0\) has shape \[2,9\]"),
        (([1, 6, 8], [2, 4, 8], [2, 4]), r"a state \(input 2\) has shape \[2,4,8\]"),
        (([1, 6, 8], [1, 4, 8], [1, 5]), r"an origin \(input 3\) has shape \[1,5\]"),
    ],
)
def test_refuses_wrong_shapes_when_the_graph_is_built(shapes: tuple[list[int], ...], message: str) -> None:
    kinds = (np.float32, np.float32, np.int32)
    every, state, origins = (opset15.parameter(s, k).output(0) for s, k in zip(shapes, kinds, strict=True))
    with pytest.raises(RuntimeError, match=f"RestoreLogits: {message}"):
        ops.restore_logits(head_of(8), every, [(state, origins)])
