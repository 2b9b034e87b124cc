from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from openvino import opset15

from dynamic_tinybert.runtime import ops

Array = npt.NDArray[Any]


def head_of(width: int) -> Array:
    return np.random.default_rng(width).standard_normal((2, width + 1), np.float32)


def graph(width: int, *, restores: bool = True) -> ov.Model:
    inputs = [opset15.parameter([-1, -1, width], np.float32)]
    if restores:
        inputs += [opset15.parameter([-1, -1], np.int32), opset15.parameter([-1, -1, 2], np.float32)]
    state, *others = (node.output(0) for node in inputs)
    return ov.Model([ops.restore_logits(state, head_of(width), *others)], inputs)


def compiled(model: ov.Model) -> ov.CompiledModel:
    return ops.core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})


def random_inputs(batch: int, tokens: int, length: int, width: int) -> tuple[Array, Array, Array]:
    """Each sequence keeps other tokens, in order; the last slots of some are fillers."""
    generator = np.random.default_rng(tokens)
    origins = np.zeros((batch, tokens), np.int32)
    for b in range(batch):
        count = max(0, tokens - b)
        origins[b, :count] = 1 + np.sort(generator.choice(length, count, replace=False))
    state, before = (generator.standard_normal((batch, *rest), np.float32) for rest in ((tokens, width), (length, 2)))
    return state, origins, before


def logits_of(state: Array, width: int) -> Array:
    head = head_of(width).astype(np.float64)
    found: Array = state.astype(np.float64) @ head[:, :-1].T + head[:, -1]
    return found


@pytest.mark.parametrize("width", [1, 7, 8, 39, 384, 768])
@pytest.mark.parametrize(("batch", "tokens", "length"), [(1, 1, 1), (1, 60, 171), (3, 9, 20)])
def test_logits_go_to_where_their_tokens_stood(isa: str, batch: int, tokens: int, length: int, width: int) -> None:
    state, origins, before = random_inputs(batch, tokens, length, width)
    expected, untouched = before.astype(np.float64), np.ones(before.shape[:2], bool)
    for b, i in zip(*np.nonzero(origins), strict=True):
        expected[b, origins[b, i] - 1] = logits_of(state, width)[b, i]
        untouched[b, origins[b, i] - 1] = False
    found = compiled(graph(width))([state, origins, before])[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found[untouched], before[untouched])


def test_without_origins_all_tokens_are_there(isa: str) -> None:
    state = random_inputs(2, 17, 40, 64)[0]
    found = compiled(graph(64, restores=False))([state])[0]
    np.testing.assert_allclose(found, logits_of(state, 64), rtol=0, atol=1e-4)


def test_survives_saving_and_loading(tmp_path: Path) -> None:
    inputs = list(random_inputs(2, 9, 20, 64))
    ov.save_model(graph(64), tmp_path / "model.xml", compress_to_fp16=False)
    loaded = compiled(ops.core().read_model(tmp_path / "model.xml"))
    np.testing.assert_array_equal(compiled(graph(64))(inputs)[0], loaded(inputs)[0])


@pytest.mark.parametrize("origin", [-1, 21])
def test_refuses_an_origin_outside_the_input(origin: int) -> None:
    state, origins, before = random_inputs(1, 9, 20, 64)
    origins[0, 4] = origin
    request = compiled(graph(64)).create_infer_request()
    request.start_async([state, origins, before])  # with one thread, infer() loses the error
    with pytest.raises(RuntimeError, match=f"origin {origin} is not among the 20 tokens"):
        request.wait()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (([4, 8], [4], [4, 2]), r"the state has shape \[4,8\]"),
        (([1, 4, 9], [1, 4], [1, 6, 2]), r"the head has shape \[2,9\]"),
        (([1, 4, 8], [1, 5], [1, 6, 2]), r"origins has shape \[1,5\]"),
        (([1, 4, 8], [1, 4], [1, 6, 3]), r"what was before has shape \[1,6,3\]"),
    ],
)
def test_refuses_wrong_shapes_when_the_graph_is_built(shapes: tuple[list[int], ...], message: str) -> None:
    kinds = (np.float32, np.int32, np.float32)
    state, origins, before = (opset15.parameter(s, k).output(0) for s, k in zip(shapes, kinds, strict=True))
    with pytest.raises(RuntimeError, match=f"RestoreLogits: {message}"):
        ops.restore_logits(state, head_of(8), origins, before)
