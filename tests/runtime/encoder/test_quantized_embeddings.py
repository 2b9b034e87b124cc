from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import opset15

from dynamic_tinybert.runtime.encoder import extension_library, ops

Array = npt.NDArray[Any]
EPSILON = 1e-12


@dataclass(frozen=True)
class Tables:
    words: Array
    scales: Array
    segments: Array
    positions: Array
    gamma: Array
    beta: Array

    @property
    def constants(self) -> dict[str, Array]:
        return {name: array for name, array in vars(self).items() if name != "words"}


@cache
def tables(width: int, words: int = 30, segments: int = 2, positions: int = 200) -> Tables:
    """Random, words and what is added to them being of one size."""
    generator = np.random.default_rng(width)
    gamma, beta = generator.normal((1, 0), 0.3, (width, 2)).astype(np.float32).T
    return Tables(
        words=generator.integers(-127, 128, (words, width), np.int8),
        scales=generator.uniform(0.5, 1.5, (words, 1)).astype(np.float32) / 64,
        segments=generator.standard_normal((segments, width), np.float32),
        positions=generator.standard_normal((positions, width), np.float32),
        gamma=gamma,
        beta=beta,
    )


def graph(of: Tables) -> ov.Model:
    ids, types = (opset15.parameter([-1, -1], np.int32) for _ in range(2))
    node = ops.quantized_embeddings(
        ids.output(0), types.output(0), opset15.constant(of.words).output(0), **of.constants, epsilon=EPSILON
    )
    return ov.Model([node.output(0)], [ids, types])


def compiled(of: Tables, threads: int = 1) -> ov.CompiledModel:
    return extension_library.core().compile_model(graph(of), "CPU", {"INFERENCE_NUM_THREADS": threads})


def random_inputs(batch: int, length: int, words: int = 30, segments: int = 2, seed: int = 0) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    ids, types = (generator.integers(0, limit, (batch, length), np.int32) for limit in (words, segments))
    return ids, types


def expected(of: Tables, ids: Array, types: Array) -> Array:
    """By PyTorch, in float64."""
    words, scales, segments, positions, gamma, beta = (torch.from_numpy(array).double() for array in vars(of).values())
    word = torch.nn.functional.embedding(torch.from_numpy(ids), words * scales)
    segment = torch.nn.functional.embedding(torch.from_numpy(types), segments)
    total = word + segment + positions[: ids.shape[1]]
    found: Array = torch.nn.functional.layer_norm(total, gamma.shape, gamma, beta, EPSILON).numpy()
    return found


@pytest.mark.parametrize("width", [2, 7, 8, 39, 384, 768])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 17), (1, 171), (3, 200)])
def test_sums_are_normalised(isa: str, batch: int, length: int, width: int) -> None:
    inputs = random_inputs(batch, length)
    found = compiled(tables(width))(inputs)[0]
    np.testing.assert_allclose(found, expected(tables(width), *inputs), rtol=0, atol=2e-5)


@given(
    batch=st.integers(1, 4),
    length=st.integers(1, 60),
    width=st.integers(4, 70),
    words=st.integers(1, 300),
    segments=st.integers(1, 4),
    spare=st.integers(0, 5),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_any_sizes(
    isa: str, batch: int, length: int, width: int, words: int, segments: int, spare: int, seed: int
) -> None:
    of = tables(width, words, segments, length + spare)
    inputs = random_inputs(batch, length, words, segments, seed)
    np.testing.assert_allclose(compiled(of, 2)(inputs)[0], expected(of, *inputs), rtol=0, atol=2e-5)


def test_first_and_last_rows_of_the_tables_are_theirs(isa: str) -> None:
    ids = np.array([[0, 29] * 100], np.int32)  # as many as there are positions
    types = np.array([[1, 0] * 100], np.int32)
    found = compiled(tables(64))([ids, types])[0]
    np.testing.assert_allclose(found, expected(tables(64), ids, types), rtol=0, atol=2e-5)


def test_smallest_level_of_8_bits(isa: str) -> None:
    of = replace(tables(64), words=np.full((30, 64), -128, np.int8))
    inputs = random_inputs(1, 40)
    np.testing.assert_allclose(compiled(of)(inputs)[0], expected(of, *inputs), rtol=0, atol=2e-5)


def test_instruction_sets_agree() -> None:
    inputs, found = random_inputs(2, 100), []
    for isa in extension_library.available_isas():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DYNAMIC_TINYBERT_ISA", isa)
            found.append(compiled(tables(100))(inputs)[0])
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-5)


def test_same_bits_for_any_number_of_threads(isa: str) -> None:
    inputs = random_inputs(2, 200)
    first = compiled(tables(96))(inputs)[0]
    for threads in (2, 3):
        np.testing.assert_array_equal(compiled(tables(96), threads)(inputs)[0], first)


def test_lengths_may_change_from_call_to_call(isa: str) -> None:
    model = compiled(tables(64), 2)
    for length in (1, 200, 7, 120):
        inputs = random_inputs(1, length)
        np.testing.assert_array_equal(model(inputs)[0], compiled(tables(64))(inputs)[0])
    assert model(random_inputs(1, 0))[0].shape == (1, 0, 64)


def test_survives_saving_and_loading(isa: str, tmp_path: Path) -> None:
    ov.save_model(graph(tables(64)), tmp_path / "model.xml", compress_to_fp16=False)
    loaded = extension_library.core().compile_model(extension_library.core().read_model(tmp_path / "model.xml"), "CPU")
    inputs = random_inputs(1, 30)
    np.testing.assert_array_equal(compiled(tables(64))(inputs)[0], loaded(inputs)[0])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("row", "wrong", "message"),
    [
        (0, -1, "ids hold -1, which is outside 0 ... 29"),
        (0, 30, "ids hold 30, which is outside 0 ... 29"),
        (0, 2**31 - 1, "ids hold 2147483647, which is outside 0 ... 29"),
        (1, -(2**31), "types hold -2147483648, which is outside 0 ... 1"),
        (1, 2, "types hold 2, which is outside 0 ... 1"),
    ],
)
def test_refuses_what_is_outside_the_tables(row: int, wrong: int, message: str, threads: int) -> None:
    inputs = random_inputs(2, 150)
    inputs[row][1, 149] = wrong
    refuses(inputs, message, threads)


def test_refuses_more_tokens_than_positions() -> None:
    refuses(random_inputs(1, 201), "201 tokens are more than the 200 positions")


def refuses(inputs: tuple[Array, Array], message: str, threads: int = 1) -> None:
    request = compiled(tables(64), threads).create_infer_request()
    request.start_async(list(inputs))  # with one thread, infer() loses the error
    with pytest.raises(RuntimeError, match=f"QuantizedEmbeddings: {message}"):
        request.wait()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": ([1, 4], np.int64)}, "ids is of type i64; convert it to i32"),
        ({"types": ([1, 4], np.float32)}, "types is of type f32; convert it to i32"),
        ({"words": ([30, 64], np.uint8)}, "words is of type u8; convert it to i8"),
        ({"words": ([30, -1], np.int8)}, r"words has shape \[30,\?\]; give \[V, H\], both known and at least 1"),
        ({"words": ([0, 64], np.int8)}, r"words has shape \[0,64\]; give \[V, H\]"),
        ({"ids": ([4], np.int32)}, r"ids has shape \[4\]"),
        ({"types": ([1, 5], np.int32)}, r"types has shape \[1,5\] beside ids of shape \[1,4\]"),
        ({"words": ([31, 64], np.int8)}, r"numbers has shape \[13086\] .* give ids and types \[B, L\] and 13087"),
        ({"gamma": np.ones(63, np.float32)}, r"numbers has shape \[13085\] .* and 13086 numbers"),
        ({"segments": np.ones((0, 64), np.float32)}, "0 segments and 200 positions; give at least one of each"),
        ({"positions": np.ones((0, 64), np.float32)}, "2 segments and 0 positions; give at least one of each"),
        ({"words": ([30, 2**60], np.int8)}, "the width of the words is 1152921504606846976; at most 65536 is allowed"),
        ({"words": ([2**60, 64], np.int8)}, "the number of words is 1152921504606846976; at most 2147483646"),
        ({"epsilon": -1.0}, "epsilon -1 must be at least 0"),
    ],
)
def test_refuses_wrong_inputs_when_the_graph_is_built(options: dict[str, Any], message: str) -> None:
    inputs = {"ids": ([1, 4], np.int32), "types": ([1, 4], np.int32), "words": ([30, 64], np.int8)}
    arguments = {"epsilon": EPSILON, **tables(64).constants, **inputs, **options}
    for name in inputs:
        arguments[name] = opset15.parameter(*arguments[name]).output(0)
    with pytest.raises(RuntimeError, match=f"QuantizedEmbeddings: {message}"):
        ops.quantized_embeddings(**arguments)
