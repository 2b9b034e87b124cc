"""Which linear layers in floats become an op of ours: those of one row for each input, as a classifier's head."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from openvino import opset13

from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.fusion import _fuse_float_product

from support.embedded_graphs import types

Array = npt.NDArray[Any]
WIDTH, COLUMNS = 24, 5
rng = np.random.default_rng(0)
WEIGHT = rng.standard_normal((COLUMNS, WIDTH), np.float32)
SQUARE = rng.standard_normal((WIDTH, WIDTH), np.float32)
BIAS = rng.standard_normal((1, 1, COLUMNS), np.float32)


def graph(make: Callable[[ov.Node], ov.Node], rows: int = 1) -> ov.Model:
    state = opset13.parameter([-1, rows, WIDTH], np.float32)
    return ov.Model([make(state).output(0)], [state])


def fused(model: ov.Model) -> ov.Model:
    copy = model.clone()
    for node in copy.get_ordered_ops():
        _fuse_float_product(node)
    copy.validate_nodes_and_infer_types()
    return copy


def run(model: ov.Model, rows: int = 1) -> Array:
    state = np.random.default_rng(1).standard_normal((3, rows, WIDTH), np.float32)
    compiled = extension_library.core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (found,) = compiled([state]).values()
    return np.asarray(found)


def linear(state: ov.Node, bias: Array = BIAS, weight: Array | ov.Node = WEIGHT) -> ov.Node:
    return opset13.add(opset13.matmul(state, weight, False, True), bias)


def head(state: ov.Node) -> ov.Node:
    pooled = opset13.tanh(linear(state, np.float32(0.1) * np.ones((1, 1, WIDTH), np.float32), SQUARE))
    return opset13.squeeze(linear(pooled), [1])


def two_readers_of_the_sum(state: ov.Node) -> ov.Node:
    total = linear(state)
    return opset13.add(opset13.tanh(total), total)


@pytest.mark.parametrize(
    ("make", "count", "tanhs"),
    [
        (linear, 1, 0),
        (lambda state: linear(state, BIAS.ravel()), 1, 0),
        (lambda state: linear(state, BIAS[0]), 1, 0),
        (head, 2, 0),
        (two_readers_of_the_sum, 1, 1),
    ],
)
def test_linear_layers_become_an_op(make: Callable[[ov.Node], ov.Node], count: int, tanhs: int) -> None:
    before = graph(make)
    after = fused(before)
    assert (types(after)["FloatLinear"], types(after)["Tanh"], types(after)["MatMul"]) == (count, tanhs, 0)
    np.testing.assert_allclose(run(after), run(before), atol=2e-6, rtol=2e-6)


def scaled_in_eight_bits(state: ov.Node) -> ov.Node:
    weight = opset13.convert(opset13.constant(np.ones((COLUMNS, WIDTH), np.int8)), np.float32)
    return linear(state, weight=opset13.multiply(weight, np.full((COLUMNS, 1), 0.5, np.float32)))


@pytest.mark.parametrize(
    "make",
    [
        lambda state: opset13.multiply(opset13.matmul(state, WEIGHT, False, True), BIAS),
        lambda state: opset13.subtract(opset13.matmul(state, WEIGHT, False, True), BIAS),
        lambda state: opset13.squeeze(opset13.matmul(state, WEIGHT[:1], False, True), [1]),
        lambda state: opset13.reshape(opset13.matmul(state, WEIGHT[:2], False, True), [-1, 2], False),
        lambda state: linear(state, BIAS.reshape(1, COLUMNS, 1)),
        lambda state: linear(state, BIAS.reshape(COLUMNS, 1)),
        lambda state: linear(state, BIAS.reshape(1, 1, 1, COLUMNS)),
        lambda state: linear(state, np.ones((1, 1, 1), np.float32)),
        lambda state: opset13.add(opset13.matmul(state, SQUARE, False, False), np.ones(WIDTH, np.float32)),
        lambda state: opset13.add(opset13.matmul(state, SQUARE[None], False, True), np.ones(WIDTH, np.float32)),
        scaled_in_eight_bits,
    ],
)
def test_others_stay_as_they_are(make: Callable[[ov.Node], ov.Node]) -> None:
    before = graph(make)
    after = fused(before)
    assert types(after) == types(before)
    np.testing.assert_array_equal(run(after), run(before))


def test_many_rows_stay_openvinos() -> None:
    assert types(fused(graph(linear, rows=2)))["FloatLinear"] == 0
    assert types(fused(graph(linear, rows=-1)))["FloatLinear"] == 0
