from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from openvino import opset13

from dynamic_tinybert.runtime.encoder import extension_library, ops

Array = npt.NDArray[Any]


def layer_of(columns: int, width: int) -> Array:
    return np.random.default_rng(width + columns).standard_normal((columns, width + 1), np.float32)


def graph(columns: int, width: int, *, tanh: bool = False) -> ov.Model:
    rows = opset13.parameter([-1, -1, width], np.float32)
    return ov.Model([ops.float_linear(rows.output(0), layer_of(columns, width), tanh=tanh)], [rows])


def compiled(model: ov.Model, threads: int = 1) -> ov.CompiledModel:
    return extension_library.core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads})


def random_rows(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize(("columns", "width"), [(1, 384), (2, 7), (3, 8), (5, 1), (384, 384), (769, 65)])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (2, 4), (9, 1)])
def test_results_are_those_of_numpy(isa: str, columns: int, width: int, shape: tuple[int, int], tanh: bool) -> None:
    rows, layer = random_rows(*shape, width), layer_of(columns, width).astype(np.float64)
    expected = rows.astype(np.float64) @ layer[:, :-1].T + layer[:, -1]
    (found,) = compiled(graph(columns, width, tanh=tanh))([rows]).values()
    tolerance = 3e-6 * np.sqrt(width) + 1e-6
    np.testing.assert_allclose(found, np.tanh(expected) if tanh else expected, atol=tolerance, rtol=2e-6)


def test_numbers_depend_neither_on_other_rows_nor_on_threads(isa: str) -> None:
    rows = random_rows(11, 1, 384)
    model = graph(500, 384, tanh=True)
    (together,) = compiled(model, 2)([rows]).values()
    alone = compiled(model)
    for k in range(11):
        (own,) = alone([rows[k : k + 1]]).values()
        np.testing.assert_array_equal(own, together[k : k + 1])


@pytest.mark.parametrize("shape", [(0, 1), (2, 0)])
def test_no_rows(shape: tuple[int, int]) -> None:
    (found,) = compiled(graph(3, 8))([np.empty((*shape, 8), np.float32)]).values()
    assert found.shape == (*shape, 3)


@pytest.mark.parametrize(
    ("rows", "layer", "message"),
    [
        (([-1, -1, 8], np.float32), np.zeros((3, 8), np.float32), r"give rows \[B, L, K\] and layer \[N, K \+ 1\]"),
        (([-1, 8], np.float32), np.zeros((3, 9), np.float32), r"give rows \[B, L, K\] and layer \[N, K \+ 1\]"),
        (([-1, -1, 8], np.float16), np.zeros((3, 9), np.float32), "input 0 is of type f16; convert it to f32"),
        (([-1, -1, 8], np.float32), np.zeros((3, 9), np.float64), "input 1 is of type f64; convert it to f32"),
    ],
)
def test_wrong_inputs_are_refused(rows: tuple[list[int], Any], layer: Array, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        ops.float_linear(opset13.parameter(*rows).output(0), layer)


def test_widths_that_are_known_late_are_checked() -> None:
    rows = opset13.parameter([-1, -1, -1], np.float32)
    # With one thread, OpenVINO 2026.4 loses the error of a synchronous request.
    model = compiled(ov.Model([ops.float_linear(rows.output(0), layer_of(3, 8))], [rows]), threads=2)
    assert next(iter(model([random_rows(2, 1, 8)]).values())).shape == (2, 1, 3)
    with pytest.raises(RuntimeError, match=r"FloatLinear: .*the layer"):
        model([random_rows(2, 1, 7)])


def test_sizes_that_would_overflow_are_refused() -> None:
    rows = opset13.parameter([-1, -1, 2**20], np.float32)
    with pytest.raises(RuntimeError, match="the width of the rows is 1048576; at most 65536"):
        ops.float_linear(rows.output(0), np.zeros((1, 2**20 + 1), np.float32))


def test_a_stored_graph_computes_the_same(tmp_path: Any) -> None:  # noqa: ANN401
    model = graph(4, 16, tanh=True)
    ov.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    rows = random_rows(2, 1, 16)
    (again,) = compiled(extension_library.core().read_model(tmp_path / "model.xml"))([rows]).values()
    (expected,) = compiled(model)([rows]).values()
    np.testing.assert_array_equal(again, expected)
