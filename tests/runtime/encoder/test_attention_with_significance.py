import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import opset15

from dynamic_tinybert.runtime.encoder import extension_library, ops

Floats = npt.NDArray[np.float32]
PADDING = -10000.0


@cache
def core() -> ov.Core:
    core = extension_library.core()
    return core


def inputs_of(width: int) -> list[ov.Node]:
    return [opset15.parameter([-1, -1, 3 * width], np.float32), opset15.parameter([-1, -1], np.float32)]


IN_FLOATS = " in floats"
AVAILABLE = extension_library.available_isas()
PATHS = [*AVAILABLE, *(isa + IN_FLOATS for isa in AVAILABLE if isa in ("avx2", "scalar"))]


@pytest.fixture(scope="module", params=PATHS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test on every path that this CPU has; ops are made while the variable is set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNAMIC_TINYBERT_ISA", request.param.removesuffix(IN_FLOATS))
        yield request.param


def in_integers(isa: str) -> bool:
    return not isa.endswith(IN_FLOATS)


@cache
def compiled(isa: str, width: int, heads: int, threads: int = 1, streams: int = 1) -> ov.CompiledModel:
    assert extension_library.isa() == isa.removesuffix(IN_FLOATS)
    inputs = inputs_of(width)
    projections, mask = (node.output(0) for node in inputs)
    outputs = ops.attention_with_significance(projections, mask, heads, int16=in_integers(isa))
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams}
    return core().compile_model(ov.Model(list(outputs), inputs), "CPU", options)


def run(model: ov.CompiledModel, query: Floats, key: Floats, value: Floats, mask: Floats) -> tuple[Floats, Floats]:
    request = model.create_infer_request()
    request.start_async([np.concatenate([query, key, value], axis=2), mask])
    request.wait()
    return request.get_output_tensor(0).data.copy(), request.get_output_tensor(1).data.copy()


def random_inputs(seed: int, batch: int, length: int, width: int) -> tuple[Floats, Floats, Floats]:
    query, key, value = np.random.default_rng(seed).standard_normal((3, batch, length, width), np.float32)
    return query, key, value


def naive(query: Floats, key: Floats, value: Floats, mask: Floats, heads: int, *, int16: bool) -> tuple[Any, Any]:
    """Attention in float64, one head of one sequence after the other; with `int16` of rounded numbers."""
    context = np.zeros(query.shape)
    significance = np.zeros(mask.shape)
    dim = query.shape[2] // heads
    for b in range(len(mask)):
        real = np.flatnonzero(mask[b] == 0)
        for head in range(heads):
            columns = slice(head * dim, (head + 1) * dim)
            q, k, v = (x[b, real, columns].astype(np.float64) for x in (query, key, value))
            if int16 and len(real):
                q, k, v = rounded(q, 2047, axis=1), rounded(k, 2047, axis=1), rounded(v, 32767, axis=0)
            for i, row in zip(real, q, strict=True):
                scores = k.astype(np.float64) @ row / math.sqrt(dim)
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                significance[b, real] += weights
                context[b, i, columns] = (np.rint(weights * 32767) / 32767 if int16 else weights) @ v
    return context, significance


def rounded(values: npt.NDArray[np.float64], most: int, axis: int) -> npt.NDArray[np.float64]:
    """Values that are whole multiples of the largest one along an axis, divided by `most`."""
    in_float32 = values.astype(np.float32)  # as the op rounds
    largest = np.abs(in_float32).max(axis, keepdims=True)
    whole: npt.NDArray[np.float32] = np.rint(in_float32 * (np.float32(most) / largest))
    back: npt.NDArray[np.float64] = whole.astype(np.float64) * largest / most
    return back


def check(isa: str, inputs: tuple[Floats, Floats, Floats], mask: Floats, heads: int) -> None:
    int16, model = in_integers(isa), compiled(isa, inputs[0].shape[2], heads)
    context, significance = run(model, *inputs, mask)
    expected_context, expected_significance = naive(*inputs, mask, heads, int16=int16)
    # A probability next to a half may be rounded to either side.
    np.testing.assert_allclose(context, expected_context, rtol=0, atol=3e-4 if int16 else 5e-6)
    np.testing.assert_allclose(significance, expected_significance, rtol=1e-5, atol=1e-6)
    assert not context[mask != 0].any()
    assert not significance[mask != 0].any()


@pytest.mark.parametrize(
    ("batch", "length", "width", "heads"),
    [
        (1, 1, 8, 1),
        (1, 2, 3, 3),
        (2, 17, 64, 2),
        (1, 47, 32, 1),
        (1, 48, 96, 3),
        (1, 49, 64, 1),
        (2, 97, 128, 2),
        (1, 130, 60, 4),
        (3, 33, 40, 2),
        (1, 171, 384, 12),
        (1, 519, 64, 1),
    ],
)
def test_equals_naive_attention(isa: str, batch: int, length: int, width: int, heads: int) -> None:
    inputs = random_inputs(length, batch, length, width)
    check(isa, inputs, np.zeros((batch, length), np.float32), heads)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_equals_naive_attention_around_any_padding(isa: str, data: st.DataObject) -> None:
    width, heads = data.draw(st.sampled_from([(8, 1), (12, 4), (64, 2), (66, 2), (64, 1)]))
    batch, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 70))
    cells = st.lists(st.booleans(), min_size=batch * length, max_size=batch * length)
    real = np.array(data.draw(cells)).reshape(batch, length)
    mask = np.where(real, np.float32(0), np.float32(PADDING))
    inputs = random_inputs(data.draw(st.integers(0, 9)), batch, length, width)
    check(isa, inputs, mask, heads)
    _, significance = run(compiled(isa, width, heads), *inputs, mask)
    np.testing.assert_allclose(significance.sum(1), heads * real.sum(1), rtol=1e-5)  # probabilities of a row add to 1


def test_integers_are_close_to_floats(isa: str) -> None:
    if not in_integers(isa):
        pytest.skip("these are the floats")
    inputs, mask = random_inputs(0, 1, 171, 384), np.zeros((1, 171), np.float32)
    context, significance = run(compiled(isa, 384, 12), *inputs, mask)
    expected_context, expected_significance = naive(*inputs, mask, 12, int16=False)
    assert np.sqrt(np.mean((context - expected_context) ** 2)) < 2e-3 * expected_context.std()
    np.testing.assert_allclose(significance, expected_significance, rtol=1e-3)


def test_large_scores_pick_one_token(isa: str) -> None:
    length, width = 40, 32
    query, value = np.ones((1, length, width), np.float32), random_inputs(1, 1, length, width)[2]
    key = np.full((1, length, width), -100, np.float32)
    key[0, 7] = 100
    context, significance = run(compiled(isa, width, 1), query, key, value, np.zeros((1, length), np.float32))
    np.testing.assert_allclose(context[0], np.tile(value[0, 7], (length, 1)), atol=1e-4 if in_integers(isa) else 0)
    np.testing.assert_array_equal(significance[0], np.where(np.arange(length) == 7, length, 0))


def test_padding_may_hold_anything(isa: str) -> None:
    inputs = random_inputs(2, 1, 20, 64)
    mask = np.zeros((1, 20), np.float32)
    mask[0, [0, 5, 6, 19]] = PADDING
    clean = run(compiled(isa, 64, 2), *inputs, mask)
    for values in inputs:
        values[mask != 0] = np.nan
    for a, b in zip(clean, run(compiled(isa, 64, 2), *inputs, mask), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nan_in_a_real_token_is_not_hidden(isa: str) -> None:
    for which in range(3):
        inputs = random_inputs(3, 1, 20, 64)
        inputs[which][0, 4, 40] = np.nan  # second head
        context, significance = run(compiled(isa, 64, 2), *inputs, np.zeros((1, 20), np.float32))
        assert np.isnan(context[0, 4, 32:]).any()
        assert np.isnan(significance).all() == (which < 2)


def test_each_sequence_as_if_alone_and_unpadded(isa: str) -> None:
    lengths, longest, width = [1, 64, 33, 17, 50], 64, 96
    inputs = random_inputs(4, len(lengths), longest, width)
    mask = np.array([[0] * n + [PADDING] * (longest - n) for n in lengths], np.float32)
    model = compiled(isa, width, 3)
    context, significance = run(model, *inputs, mask)
    for b, n in enumerate(lengths):
        query, key, value = (x[b : b + 1, :n] for x in inputs)
        alone = run(model, query, key, value, np.zeros((1, n), np.float32))
        np.testing.assert_array_equal(context[b, :n], alone[0][0])
        np.testing.assert_array_equal(significance[b, :n], alone[1][0])


def test_padding_in_the_middle_is_as_if_cut_out(isa: str) -> None:
    inputs = random_inputs(5, 1, 70, 64)
    mask = np.where(np.random.default_rng(6).random((1, 70)) < 0.3, PADDING, 0).astype(np.float32)
    real = mask[0] == 0
    model = compiled(isa, 64, 2)
    context, significance = run(model, *inputs, mask)
    query, key, value = (x[:, real] for x in inputs)
    cut = run(model, query, key, value, np.zeros((1, int(real.sum())), np.float32))
    np.testing.assert_array_equal(context[:, real], cut[0])
    np.testing.assert_array_equal(significance[:, real], cut[1])


def test_same_bits_for_any_number_of_threads(isa: str) -> None:
    inputs, mask = random_inputs(7, 2, 200, 128), np.zeros((2, 200), np.float32)
    mask[1, 150:] = PADDING
    first = run(compiled(isa, 128, 4, threads=1), *inputs, mask)
    for threads in (2, 3, 4):
        for a, b in zip(first, run(compiled(isa, 128, 4, threads=threads), *inputs, mask), strict=True):
            np.testing.assert_array_equal(a, b)


def test_one_graph_at_many_lengths(isa: str) -> None:
    for length in (60, 3, 100, 60, 1):
        check(isa, random_inputs(length, 1, length, 64), np.zeros((1, length), np.float32), 2)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="OpenVINO runs no two requests at once on one core")
def test_concurrent_requests_do_not_disturb_each_other(isa: str) -> None:
    model = compiled(isa, 96, 3, threads=2, streams=2)
    assert model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") == 2
    # Of unlike lengths, so that a request that found the memory of another would compute something else.
    cases = [(*random_inputs(n, 1, n, 96), np.zeros((1, n), np.float32)) for n in range(150, 400, 31)]
    alone = [run(model, *case) for case in cases]

    def ask(offset: int) -> None:
        for k in range(3 * len(cases)):
            case = (offset + k) % len(cases)
            for expected, found in zip(alone[case], run(model, *cases[case]), strict=True):
                np.testing.assert_array_equal(found, expected)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))


def test_float_paths_agree() -> None:
    inputs, mask = random_inputs(8, 2, 100, 64), np.zeros((2, 100), np.float32)
    results = []
    for name in ("avx2", "scalar"):
        if name not in extension_library.available_isas():
            pytest.skip(f"this CPU has no {name}")
        results.append(run_by(name + IN_FLOATS, inputs, mask))
    for of_avx2, of_scalar, tolerance in zip(*results, (5e-6, 1e-4), strict=True):
        np.testing.assert_allclose(of_avx2, of_scalar, rtol=1e-5, atol=tolerance)
        assert of_avx2.tobytes() != of_scalar.tobytes()  # so the variable did choose between different code


@pytest.mark.parametrize("length", [1, 15, 100])
def test_vector_paths_agree_to_the_bit(length: int) -> None:
    inputs, mask = random_inputs(8, 2, length, 60), np.zeros((2, length), np.float32)
    mask[1, length // 2 :] = PADDING
    first, *others = (run_by(name, inputs, mask) for name in extension_library.available_isas() if name != "scalar")
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


def run_by(isa: str, inputs: tuple[Floats, Floats, Floats], mask: Floats) -> tuple[Floats, Floats]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNAMIC_TINYBERT_ISA", isa.removesuffix(IN_FLOATS))
        return run(compiled(isa, inputs[0].shape[2], 2), *inputs, mask)


def alone(isa: str, width: int, heads: int, **quantized: float) -> ov.CompiledModel:
    parameters = inputs_of(width)
    projections, mask = (node.output(0) for node in parameters)
    context = ops.attention(projections, mask, heads, int16=in_integers(isa), **quantized)
    assert context.get_node().get_output_size() == 1
    return core().compile_model(ov.Model([context], parameters), "CPU")


def test_significance_can_be_left_out(isa: str) -> None:
    inputs, mask = random_inputs(9, 1, 30, 64), np.zeros((1, 30), np.float32)
    context = alone(isa, 64, 2)([np.concatenate(inputs, axis=2), mask])[0]
    np.testing.assert_array_equal(context, run(compiled(isa, 64, 2), *inputs, mask)[0])


@pytest.mark.parametrize(("width", "heads"), [(64, 2), (60, 4), (96, 3), (384, 12)])
def test_context_in_8_bits(isa: str, width: int, heads: int) -> None:
    inv_scale, zero_point = 250.0, 117.0
    inputs, mask = random_inputs(11, 2, 70, width), np.zeros((2, 70), np.float32)
    mask[1, 50:] = PADDING
    quantized = alone(isa, width, heads, inv_scale=inv_scale, zero_point=zero_point)(
        [np.concatenate(inputs, axis=2), mask]
    )[0]
    context, _ = run(compiled(isa, width, heads), *inputs, mask)
    in_units = context * np.float32(inv_scale) + np.float32(zero_point)
    assert quantized.dtype == np.uint8
    assert in_units.min() < 0  # both ends are met
    assert in_units.max() > 255
    unclear = np.abs(in_units - np.floor(in_units) - 0.5) < 1e-3  # multiplied and added at once, or one by one
    np.testing.assert_array_equal(quantized[~unclear], np.rint(in_units).clip(0, 255)[~unclear])
    assert unclear.mean() < 0.01
    assert (quantized[mask != 0] == zero_point).all()


def test_survives_saving_and_loading(isa: str, tmp_path: Path) -> None:
    parameters = inputs_of(64)
    projections, mask = (node.output(0) for node in parameters)
    model = ov.Model(list(ops.attention_with_significance(projections, mask, 2, int16=in_integers(isa))), parameters)
    ov.save_model(model, tmp_path / "model.xml")
    loaded = core().compile_model(core().read_model(tmp_path / "model.xml"), "CPU")
    inputs, zeros = random_inputs(10, 1, 30, 64), np.zeros((1, 30), np.float32)
    for a, b in zip(run(compiled(isa, 64, 2), *inputs, zeros), run(loaded, *inputs, zeros), strict=True):
        np.testing.assert_array_equal(a, b)


def test_shapes_are_inferred() -> None:
    projections = opset15.parameter([2, 9, 36], np.float32).output(0)
    mask = opset15.parameter([-1, -1], np.float32).output(0)
    context, significance = ops.attention_with_significance(projections, mask, 3)
    assert context.get_shape() == [2, 9, 12]
    assert significance.get_shape() == [2, 9]


@pytest.mark.parametrize(
    ("index", "shape", "kind", "heads", "message"),
    [
        (0, [1, 4, 36], np.float64, 3, "input 0 is of type f64; convert it to f32"),
        (0, [4, 36], np.float32, 3, r"query, key and value have shape \[4,36\]"),
        (1, [1, 1, 1, 4], np.float32, 3, r"the mask has shape \[1,1,1,4\]"),
        (0, [1, 4, 36], np.float32, 5, "width 36 is not 3 times a multiple of 5 heads"),
        (0, [1, 4, 37], np.float32, 1, "width 37 is not 3 times a multiple of 1 heads"),
        (0, [1, 4, 36], np.float32, 0, "heads 0 must be at least 1"),
        (0, [1, 4, 36], np.float32, 6148914691236517206, "heads is 6148914691236517206; at most 65536 is allowed"),
        (0, [1, 4, 36], np.float32, 65536, "width 36 is not 3 times a multiple of 65536 heads"),
        (0, [1, 4, 0], np.float32, 1, "width 0 is not 3 times a multiple of 1 heads"),
        (0, [1, 4, 2**40], np.float32, 1, "the width of query, key and value is 1099511627776; at most 196608"),
    ],
)
def test_refuses_wrong_inputs_when_the_graph_is_built(
    index: int, shape: list[int], kind: npt.DTypeLike, heads: int, message: str
) -> None:
    shapes = [[1, 4, 36], [1, 4]]
    kinds: list[npt.DTypeLike] = [np.float32] * 2
    shapes[index], kinds[index] = shape, kind
    projections, mask = (opset15.parameter(s, k).output(0) for s, k in zip(shapes, kinds, strict=True))
    with pytest.raises(RuntimeError, match=f"AttentionWithSignificance: {message}"):
        ops.attention_with_significance(projections, mask, heads)


@pytest.mark.parametrize("quantized", [{"inv_scale": -1.0}, {"inv_scale": 1.0, "zero_point": 256.0}])
def test_refuses_to_quantise_in_no_units(quantized: dict[str, float]) -> None:
    projections, mask = (node.output(0) for node in inputs_of(12))
    with pytest.raises(RuntimeError, match="Attention: the context cannot be quantised"):
        ops.attention(projections, mask, 3, **quantized)
