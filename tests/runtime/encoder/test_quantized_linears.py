import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import torch
from openvino import opset15

from dynamic_tinybert.runtime.common.errors import ExtensionError, InvalidInputError
from dynamic_tinybert.runtime.encoder import extension_library, ops
from dynamic_tinybert.runtime.encoder.eight_bits import EightBitProduct, pack

Array = npt.NDArray[Any]
EPSILON = 1e-12


@cache
def product(width: int, depth: int) -> EightBitProduct:
    """Of random constants, such that results lie near 1, where GELU bends, and levels reach 0 and 255."""
    generator = np.random.default_rng(width * 10_000 + depth)
    return EightBitProduct(
        weight=generator.integers(-127, 128, (width, depth), np.int8),
        scale=generator.uniform(0.5, 1.5, width).astype(np.float32) / np.float32(4000 * depth**0.5),
        bias=generator.normal(0, 0.5, width).astype(np.float32),
        inv_scale=generator.uniform(40, 80, depth).astype(np.float32),
        zero_point=float(generator.integers(100, 156)),
    )


@cache
def gamma_and_beta(width: int) -> tuple[Array, Array]:
    gamma, beta = np.random.default_rng(width).normal((1, 0), 0.3, (width, 2)).astype(np.float32).T
    return gamma, beta


def products_of(depth: int, widths: Sequence[int], *, quantizes: bool = True) -> list[EightBitProduct]:
    found = [product(width, before) for width, before in zip(widths, [depth, *widths], strict=False)]
    return found if quantizes else [replace(found[0], inv_scale=None), *found[1:]]


def graph(
    depth: int,
    widths: Sequence[int],
    *,
    quantizes: bool = True,
    normalizes: bool = False,
    residual: bool = False,
    portable: bool = False,
) -> ov.Model:
    products = products_of(depth, widths, quantizes=quantizes)
    rows = opset15.parameter([-1, -1, depth], np.float32 if quantizes else np.uint8)
    added = [opset15.parameter([-1, -1, widths[-1]], np.float32)] if residual else []
    node = ops.quantized_linears(
        rows.output(0),
        pack(products, gamma_and_beta(widths[-1]) if normalizes else (), portable=portable),
        widths=widths,
        zero_points=[p.zero_point for p in products],
        epsilon=EPSILON if normalizes else None,
        residual=added[0].output(0) if residual else None,
    )
    return ov.Model([node.output(0)], [rows, *added])


def compiled(depth: int, widths: Sequence[int], threads: int = 1, **options: bool) -> ov.CompiledModel:
    built = graph(depth, widths, **options)
    return extension_library.core().compile_model(built, "CPU", {"INFERENCE_NUM_THREADS": threads})


def random_rows(batch: int, length: int, depth: int) -> Array:
    return np.random.default_rng(length).standard_normal((batch, length, depth), np.float32)


def levels_of(rows: Array, product: EightBitProduct) -> Array:
    assert product.inv_scale is not None
    found: Array = np.rint(rows * product.inv_scale + np.float32(product.zero_point)).clip(0, 255)
    return found.astype(np.uint8)


def result_of(levels: Array, product: EightBitProduct) -> Array:
    """In float64, of exact sums."""
    sums = (levels.astype(np.int64) - int(product.zero_point)) @ product.weight.T.astype(np.int64)
    found: Array = sums * product.scale.astype(np.float64) + product.bias
    return found


@pytest.mark.parametrize("width", [1, 15, 64, 100, 384])
@pytest.mark.parametrize("depth", [4, 20, 64, 384])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 17), (1, 171)])
def test_one_product_of_levels(isa: str, batch: int, length: int, depth: int, width: int) -> None:
    levels = np.random.default_rng(length).integers(0, 256, (batch, length, depth), np.uint8)
    found = compiled(depth, [width], quantizes=False)([levels])[0]
    np.testing.assert_allclose(found, result_of(levels, product(width, depth)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 17), (1, 171)])
def test_rows_are_quantised_first(isa: str, batch: int, length: int) -> None:
    rows, first = random_rows(batch, length, 64), product(96, 64)
    levels = levels_of(rows, first)
    found = compiled(64, [96])([rows])[0]
    # Multiplied and added at once or one by one, a number halfway between two levels goes to either.
    step = np.abs(first.weight).max() * first.scale.max()
    difference = np.abs(found - result_of(levels, first))
    assert difference.max() < 2 * step
    assert np.median(difference) < 1e-5
    if levels.size > 10_000:
        assert {0, 255} <= set(levels.ravel())


@pytest.mark.parametrize("length", [1, 40, 171])
def test_gelu_between_two_products(isa: str, length: int) -> None:
    levels = np.random.default_rng(length).integers(0, 256, (1, length, 64), np.uint8)
    first, second = products_of(64, [256, 64])
    inner = torch.nn.functional.gelu(torch.from_numpy(result_of(levels, first))).numpy()
    expected = result_of(levels_of(inner, second), second)
    found = compiled(64, [256, 64], quantizes=False)([levels])[0]
    step = np.abs(second.weight).max() * second.scale.max()
    difference = np.abs(found - expected)
    # GELU is a polynomial, and a number near the middle of two levels goes to either.
    assert difference.max() < 3 * step
    assert difference.mean() < 0.1 * step
    assert np.abs(expected).mean() > 50 * step


@pytest.mark.parametrize("residual", [True, False], ids=["residual", "rows"])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 17), (1, 171)])
def test_what_is_added_is_normalised(isa: str, batch: int, length: int, residual: bool) -> None:
    rows = random_rows(batch, length, 64)
    inputs = [rows, random_rows(batch, length, 64)[::-1]] if residual else [rows]
    alone = compiled(64, [128, 64])([rows])[0]
    gamma, beta = map(torch.from_numpy, gamma_and_beta(64))
    total = torch.from_numpy(alone + inputs[-1])
    expected = torch.nn.functional.layer_norm(total, gamma.shape, gamma, beta, EPSILON)
    found = compiled(64, [128, 64], normalizes=True, residual=residual)(inputs)[0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=2e-5)


def on_each_path(rows: Array, widths: Sequence[int]) -> list[Array]:
    found = []
    for isa in extension_library.available_isas():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DYNAMIC_TINYBERT_ISA", isa)
            found.append(compiled(rows.shape[2], widths, normalizes=True)([rows])[0])
    return found


def test_instruction_sets_agree_on_a_feed_forward_part() -> None:
    rows = random_rows(1, 60, 64)
    first, *others = on_each_path(rows, [256, 64])
    for isa, other in zip(extension_library.available_isas()[1:], others, strict=True):
        if isa == "scalar":  # whose GELU is no polynomial
            assert np.abs(other - first).mean() < 2e-4
            np.testing.assert_allclose(other, first, rtol=0, atol=0.02)
        else:
            np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("kind", ["largest", "smallest", "both", "any"])
@pytest.mark.parametrize(("length", "depth", "width"), [(1, 4, 1), (13, 68, 100), (7, 1536, 72)])
def test_sums_that_would_saturate_16_bits_are_exact(isa: str, kind: str, length: int, depth: int, width: int) -> None:
    generator = np.random.default_rng(depth)
    weights = {
        "largest": np.full((width, depth), 127),
        "smallest": np.full((width, depth), -128),
        "both": np.where(generator.random((width, depth)) < 0.5, 127, -128),
        "any": generator.integers(-128, 128, (width, depth)),
    }
    levels = np.full((1, length, depth), 255, np.uint8)
    levels[0, 1::2] = generator.integers(0, 256, levels[0, 1::2].shape)
    ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
    packed = pack([EightBitProduct(weights[kind].astype(np.int8), ones, zeros, None, 0.0)])
    rows = opset15.parameter([-1, -1, depth], np.uint8)
    node = ops.quantized_linears(rows.output(0), packed, widths=[width], zero_points=[0.0])
    found = extension_library.core().compile_model(ov.Model([node.output(0)], [rows]), "CPU")([levels])[0]
    sums = levels.astype(np.int64) @ weights[kind].T
    np.testing.assert_array_equal(found, sums.astype(np.float32))


def test_same_bits_for_any_number_of_threads(isa: str) -> None:
    rows = random_rows(2, 200, 96)
    first = compiled(96, [384, 96], normalizes=True)([rows])[0]
    for threads in (2, 3):
        np.testing.assert_array_equal(compiled(96, [384, 96], threads, normalizes=True)([rows])[0], first)


def test_lengths_may_change_from_call_to_call(isa: str) -> None:
    model = compiled(64, [256, 64], 2, normalizes=True)
    for length in (1, 300, 7, 120):
        rows = random_rows(1, length, 64)
        np.testing.assert_array_equal(model([rows])[0], compiled(64, [256, 64], normalizes=True)([rows])[0])
    assert model([random_rows(1, 0, 64)])[0].shape == (1, 0, 64)


def test_nan_is_not_hidden_and_stays_in_its_row(isa: str) -> None:
    rows = random_rows(1, 40, 64)
    model = compiled(64, [128, 64], normalizes=True)
    clean = model([rows])[0]
    rows[0, 5, 60] = np.nan
    found = model([rows])[0]
    assert np.isnan(found[0, 5]).all()
    others = np.arange(40) != 5
    np.testing.assert_array_equal(found[0, others], clean[0, others])


def test_survives_saving_and_loading(isa: str, tmp_path: Path) -> None:
    ov.save_model(graph(64, [128, 64], normalizes=True), tmp_path / "model.xml", compress_to_fp16=False)
    loaded = extension_library.core().compile_model(extension_library.core().read_model(tmp_path / "model.xml"), "CPU")
    rows = random_rows(1, 30, 64)
    np.testing.assert_array_equal(compiled(64, [128, 64], normalizes=True)([rows])[0], loaded([rows])[0])


@pytest.mark.parametrize(
    ("depth", "widths", "options"),
    [
        (64, [128, 64], {"normalizes": True}),
        (64, [64], {"normalizes": True, "residual": True, "quantizes": False}),
        (4, [100], {}),
        (132, [36, 4, 65], {}),
    ],
)
def test_weights_that_the_op_packs_give_the_same_bits(
    isa: str, depth: int, widths: list[int], options: dict[str, bool], tmp_path: Path
) -> None:
    """Also if several threads make the first call, and for constants at any place in a file."""
    ov.save_model(graph(depth, widths, portable=True, **options), tmp_path / "model.xml", compress_to_fp16=False)
    assert 'isa="any"' in (tmp_path / "model.xml").read_text()
    core = extension_library.core()
    loaded = core.compile_model(core.read_model(tmp_path / "model.xml"), "CPU", {"NUM_STREAMS": 2})
    rows = random_rows(2, 30, depth)
    inputs = [rows if options.get("quantizes", True) else (rows * 30 + 128).clip(0, 255).astype(np.uint8)]
    if options.get("residual"):
        inputs.append(random_rows(2, 30, widths[-1]))
    expected = compiled(depth, widths, **options)(inputs)[0]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: loaded.create_infer_request().infer(inputs)[0], range(8)):
            np.testing.assert_array_equal(found, expected)


def test_weights_are_packed_for_the_cpu_that_reads_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ov.save_model(graph(64, [128, 64], portable=True), tmp_path / "model.xml", compress_to_fp16=False)
    core, rows, results = extension_library.core(), random_rows(1, 30, 64), {}
    for isa in extension_library.available_isas():
        monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", isa)
        results[isa] = core.compile_model(core.read_model(tmp_path / "model.xml"), "CPU")([rows])[0]
        np.testing.assert_array_equal(results[isa], compiled(64, [128, 64])([rows])[0])
    vectors = [result for isa, result in results.items() if isa != "scalar"]
    assert all(np.array_equal(result, vectors[0]) for result in vectors)


def test_the_op_packs_weights_of_a_constant_only() -> None:
    packed = pack(products_of(8, [8]), portable=True)
    rows, given = opset15.parameter([1, 4, 8], np.float32), opset15.parameter([len(packed.constants)], np.int8)
    attributes = {"widths": [8], "zero_points": [128.0], "normalizes": False, "epsilon": 0.0, "isa": "any"}
    inputs = [rows.output(0), given.output(0)]
    with pytest.raises(RuntimeError, match="the constants are computed by Parameter; weights can be packed here only"):
        extension_library.node_factory().create("QuantizedLinears", inputs, {**attributes, "weight_bytes": [64]})


@pytest.mark.parametrize(("weight_bytes", "message"), [((63,), "take 63 bytes; .* must take 64"), ((128,), "need")])
def test_refuses_other_sizes_of_weights_that_it_packs(weight_bytes: tuple[int, ...], message: str) -> None:
    packed = replace(pack(products_of(8, [8]), portable=True), weight_bytes=weight_bytes)
    rows = opset15.parameter([1, 4, 8], np.float32).output(0)
    with pytest.raises(RuntimeError, match=f"QuantizedLinears: .*{message}"):
        ops.quantized_linears(rows, packed, widths=[8], zero_points=[128.0])


def test_equal_products_share_their_memory(isa: str) -> None:
    first, second = (graph(64, [128, 64], normalizes=True) for _ in range(2))
    constants = [
        node.input_value(1).get_node().data
        for model in (first, second)
        for node in model.get_ordered_ops()
        if node.get_type_name() == "QuantizedLinears"
    ]
    assert np.shares_memory(*constants)
    assert constants[0].ctypes.data % 64 == 0
    rows = random_rows(1, 30, 64)
    expected = extension_library.core().compile_model(first, "CPU")([rows])[0]
    other = extension_library.core().compile_model(second, "CPU")
    del first, second, constants
    gc.collect()
    np.testing.assert_array_equal(other([rows])[0], expected)


RIGHT: dict[str, Any] = {"widths": [8, 8], "zero_points": [128.0, 0.0], "epsilon": EPSILON}


@pytest.mark.parametrize(
    ("shape", "kind", "options", "message"),
    [
        ([1, 4, 8], np.float64, {}, "the rows are of type f64; convert them to u8 or f32"),
        ([1, 4, 8], np.uint8, {}, "rows in u8 cannot be added to the result; give a residual"),
        ([4, 8], np.float32, {}, r"the rows have shape \[4,8\]"),
        ([1, 4, 6], np.float32, {}, r"the rows have shape \[1,4,6\]; give \[B, L, K\], K a multiple of 4"),
        ([1, 4, 12], np.float32, {}, r"the constants have shape \[\d+\] where these widths on rows of 12 need"),
        ([1, 4, 8], np.float32, {"widths": [8]}, "1 widths and 2 zero points"),
        ([1, 4, 8], np.float32, {"widths": [6, 8]}, "width 6 of product 0 must be at least 1 and, before another"),
        ([1, 4, 8], np.float32, {"widths": [8, 2**62]}, "a width is 4611686018427387904; at most 65536 is allowed"),
        ([1, 4, 2**60], np.float32, {}, "the width of the rows is 1152921504606846976; at most 65536 is allowed"),
        ([1, 4, 0], np.float32, {}, r"the rows have shape \[1,4,0\]"),
        ([1, 4, 8], np.float32, {"zero_points": [0.0, 256.0]}, "zero point 256 is outside"),
        ([1, 4, 8], np.float32, {"epsilon": -1.0}, "epsilon -1 must be at least 0"),
        ([1, 4, 8], np.float32, {"residual": [1, 5, 8]}, r"input 2, f32 of shape \[1,5,8\], cannot be added"),
        ([1, 4, 8], np.float32, {"residual": [1, 4, 8], "epsilon": None}, "3 inputs; give rows and constants"),
    ],
)
def test_refuses_wrong_inputs_when_the_graph_is_built(
    shape: list[int], kind: npt.DTypeLike, options: dict[str, Any], message: str
) -> None:
    constants = pack(products_of(8, [8, 8]), gamma_and_beta(8))
    given = {**RIGHT, **options}
    if "residual" in given:
        given["residual"] = opset15.parameter(given["residual"], np.float32).output(0)
    with pytest.raises(RuntimeError, match=f"QuantizedLinears: {message}"):
        ops.quantized_linears(opset15.parameter(shape, kind).output(0), constants, **given)


@pytest.mark.parametrize("shape", [(4,), (0, 4), (4, 0), (3, 6)])
def test_weights_of_another_form_are_not_packed(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"weights of shape .* cannot be packed; give \[N, K\]"):
        extension_library.packed_weights(np.zeros(shape, np.int8), extension_library.isa())


def test_weights_are_packed_for_instruction_sets_of_this_cpu_only() -> None:
    with pytest.raises(ExtensionError, match=r"cannot run 'neon'; pack weights for one of .*scalar"):
        extension_library.packed_weights(np.zeros((4, 4), np.int8), "neon")
    packed = replace(pack(products_of(8, [8])), isa="neon")
    rows = opset15.parameter([1, 4, 8], np.float32).output(0)
    with pytest.raises(RuntimeError, match="the weights are packed for 'neon', which this CPU cannot run"):
        ops.quantized_linears(rows, packed, widths=[8], zero_points=[128.0])


@pytest.mark.parametrize(
    ("weight_bytes", "message"), [((64,), "take 64 bytes"), ((512, 512), "1 widths and 2 sizes"), ((9999,), "need")]
)
def test_refuses_other_sizes_of_packed_weights(
    weight_bytes: tuple[int, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", "scalar")  # whose weights take no more than their panels
    packed = replace(pack(products_of(8, [8])), weight_bytes=weight_bytes)
    rows = opset15.parameter([1, 4, 8], np.float32).output(0)
    with pytest.raises(RuntimeError, match=f"QuantizedLinears: .*{message}"):
        ops.quantized_linears(rows, packed, widths=[8], zero_points=[128.0])
