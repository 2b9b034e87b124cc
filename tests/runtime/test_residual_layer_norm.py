from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import torch
from openvino import opset15

from dynamic_tinybert.runtime import ops

Floats = npt.NDArray[np.float32]
ZERO_POINT = 117.0


@cache
def scales(width: int) -> Floats:
    """Gamma, beta and units: some columns reach both ends of 8 bits."""
    generator = np.random.default_rng(width)
    return np.stack([generator.normal(1, 0.3, width), generator.normal(0, 0.3, width), generator.uniform(20, 90, width)]
    ).astype(np.float32)  # fmt: skip


def graph(width: int, rows: int = 3) -> ov.Model:
    inputs = [opset15.parameter([-1, -1, width], np.float32) for _ in range(2)]
    constant = opset15.constant(scales(width)[:rows]).output(0)
    first, second = (i.output(0) for i in inputs)
    zero_point = ZERO_POINT if rows == 3 else 0
    node = ops.residual_layer_norm(first, second, constant, epsilon=1e-12, zero_point=zero_point)
    return ov.Model(list(node.outputs()), inputs)


def compiled(width: int, rows: int = 3, threads: int = 1) -> ov.CompiledModel:
    return ops.core().compile_model(graph(width, rows), "CPU", {"INFERENCE_NUM_THREADS": threads})


def random_inputs(batch: int, length: int, width: int) -> list[Floats]:
    return list(np.random.default_rng(length).standard_normal((2, batch, length, width), np.float32))


def expected(first: Floats, second: Floats) -> Floats:
    gamma, beta, _ = torch.from_numpy(scales(first.shape[2]))
    state: Floats = torch.nn.functional.layer_norm(
        torch.from_numpy(first + second), gamma.shape, gamma, beta, 1e-12
    ).numpy()
    return state


@pytest.mark.parametrize("width", [1, 7, 8, 39, 64, 384, 768])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 17), (1, 171)])
def test_equals_layer_norm_in_pytorch(isa: str, batch: int, length: int, width: int) -> None:
    inputs = random_inputs(batch, length, width)
    state, quantized = compiled(width)(inputs).values()
    np.testing.assert_allclose(state, expected(*inputs), rtol=0, atol=2e-5 if width > 8 else 2e-3)  # short variances
    in_units = state * scales(width)[2] + np.float32(ZERO_POINT)
    unclear = np.abs(in_units - np.floor(in_units) - 0.5) < 1e-3  # multiplied and added at once, or one by one
    assert quantized.dtype == np.uint8
    np.testing.assert_array_equal(quantized[~unclear], np.rint(in_units).clip(0, 255)[~unclear])
    if state.size > 10_000:
        assert {0, 255} <= set(quantized.ravel())


def test_without_units_there_is_the_state_alone(isa: str) -> None:
    inputs = random_inputs(2, 9, 64)
    (alone,) = compiled(64, rows=2)(inputs).values()
    np.testing.assert_array_equal(alone, compiled(64)(inputs)[0])


def test_same_bits_for_any_number_of_threads(isa: str) -> None:
    inputs = random_inputs(2, 200, 96)
    first = compiled(96)(inputs)
    for threads in (2, 3):
        other = compiled(96, threads=threads)(inputs)
        for k in range(2):
            np.testing.assert_array_equal(first[k], other[k])


def test_nan_is_not_hidden_and_stays_in_its_row(isa: str) -> None:
    inputs = random_inputs(1, 40, 64)
    clean = compiled(64)(inputs)[0]
    inputs[1][0, 5, 60] = np.nan
    state = compiled(64)(inputs)[0]
    assert np.isnan(state[0, 5]).all()
    others = np.arange(40) != 5
    np.testing.assert_array_equal(state[0, others], clean[0, others])


def test_survives_saving_and_loading(isa: str, tmp_path: Path) -> None:
    ov.save_model(graph(64), tmp_path / "model.xml", compress_to_fp16=False)
    loaded = ops.core().compile_model(ops.core().read_model(tmp_path / "model.xml"), "CPU")
    inputs = random_inputs(1, 30, 64)
    for k, output in enumerate(compiled(64)(inputs).values()):
        np.testing.assert_array_equal(output, loaded(inputs)[k])


@pytest.mark.parametrize(
    ("shapes", "kind", "options", "message"),
    [
        (([1, 4, 8], [1, 4, 8], [3, 8]), np.float64, {}, "input 0 is of type f64; convert it to f32"),
        (([1, 4, 8], [1, 5, 8], [3, 8]), np.float32, {}, r"input 1 has shape \[1,5,8\]"),
        (([4, 8], [4, 8], [3, 8]), np.float32, {}, r"input 0 has shape \[4,8\]"),
        (([1, 4, 8], [1, 4, 8], [4, 8]), np.float32, {}, r"the scales have shape \[4,8\]"),
        (([1, 4, 8], [1, 4, 8], [3, 9]), np.float32, {}, r"the scales have shape \[3,9\]"),
        (([1, 4, 8], [1, 4, 8], [3, 8]), np.float32, {"epsilon": -1.0}, "epsilon -1 must be at least 0"),
        (([1, 4, 8], [1, 4, 8], [3, 8]), np.float32, {"zero_point": 256.0}, "zero point 256 is outside"),
    ],
)
def test_refuses_wrong_inputs_when_the_graph_is_built(
    shapes: tuple[list[int], ...], kind: npt.DTypeLike, options: dict[str, float], message: str
) -> None:
    first, second, constant = (opset15.parameter(shape, kind).output(0) for shape in shapes)
    with pytest.raises(RuntimeError, match=f"ResidualLayerNorm: {message}"):
        ops.residual_layer_norm(first, second, constant, **{"epsilon": 1e-12, **options})
