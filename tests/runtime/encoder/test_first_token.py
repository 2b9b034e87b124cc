"""What ops do for heads that read the first token alone: keep it, and attend for the first tokens only."""

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import opset15

from dynamic_tinybert.runtime.encoder import extension_library, ops

PADDING = np.float32(-10000)


@pytest.fixture(scope="module", params=extension_library.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Ops are made while the variable is set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNAMIC_TINYBERT_ISA", request.param)
        yield request.param


def outputs_of(model: ov.CompiledModel, *inputs: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    request = model.create_infer_request()
    request.start_async(list(inputs))
    request.wait()
    return [request.get_output_tensor(i).data.copy() for i in range(len(model.outputs))]


def compiled(outputs: list[ov.Output], inputs: list[ov.Node]) -> ov.CompiledModel:
    return extension_library.core().compile_model(ov.Model(outputs, inputs), "CPU", {"INFERENCE_NUM_THREADS": 1})


@cache
def attentions(isa: str, width: int, heads: int, int16: bool, quantized: bool) -> tuple[ov.CompiledModel, ...]:
    """Attention for all tokens, and for those with a query."""
    assert extension_library.isa() == isa
    in_8_bits = {"inv_scale": 40.0, "zero_point": 120.0} if quantized else {}
    mask = opset15.parameter([-1, -1], np.float32)
    both = []
    for parts in (3, 2):
        projections = opset15.parameter([-1, -1, parts * width], np.float32)
        query = opset15.parameter([-1, -1, width], np.float32)
        extra: list[ov.Node] = [query] if parts == 2 else []
        context = ops.attention(
            projections.output(0),
            mask.output(0),
            heads,
            int16=int16,
            query=query.output(0) if extra else None,
            **in_8_bits,
        )
        both.append(compiled([context], [projections, mask, *extra]))
    return tuple(both)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_attention_for_the_first_tokens_alone_has_the_same_bits(isa: str, data: st.DataObject) -> None:
    width, heads = data.draw(st.sampled_from([(8, 1), (12, 4), (64, 2), (66, 2)]))
    every, some = attentions(isa, width, heads, data.draw(st.booleans()), data.draw(st.booleans()))
    batch, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 120))
    queries = data.draw(st.integers(1, length))
    generator = np.random.default_rng(data.draw(st.integers(0, 9)))
    projections = generator.standard_normal((batch, length, 3 * width), np.float32)
    real = generator.random((batch, length)) < data.draw(st.sampled_from([0.3, 0.9, 1.0]))
    mask = np.where(real, np.float32(0), PADDING)
    (expected,) = outputs_of(every, projections, mask)
    (found,) = outputs_of(some, projections[..., width:].copy(), mask, projections[:, :queries, :width].copy())
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected[:, :queries])


@pytest.mark.parametrize(
    ("query", "message"),
    [([2, 5, 8], "5 queries for 4 tokens"), ([3, 1, 8], "the query"), ([2, 1, 6], "the query")],
)
def test_queries_that_do_not_fit_are_refused(query: list[int], message: str) -> None:
    shapes = ([-1, -1, 16], [-1, -1], [-1, -1, -1])
    inputs = [opset15.parameter(shape, np.float32) for shape in shapes]
    projections, mask, first = (node.output(0) for node in inputs)
    model = compiled([ops.attention(projections, mask, 2, query=first)], inputs)
    arrays = (np.zeros(shape, np.float32) for shape in ([2, 4, 16], [2, 4], query))
    with pytest.raises(RuntimeError, match=message):
        outputs_of(model, *arrays)


@cache
def selection(keep_first: bool) -> ov.CompiledModel:
    shapes: list[tuple[list[int], Any]] = [([-1, -1], np.float32), ([-1, -1], np.float32), ([-1], np.int32)]
    inputs = [opset15.parameter(shape, kind) for shape, kind in (*shapes, ([], np.float32), ([], np.float32))]
    significance, mask, length, ratio, threshold = (node.output(0) for node in inputs)
    positions, _, _ = ops.select_tokens(significance, mask, length, ratio, threshold, keep_first=keep_first)
    return compiled([positions], inputs)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, -2.0]), min_size=1, max_size=30),
    st.data(),
    st.floats(2**-10, 1.0, width=32),
    st.sampled_from([-math.inf, 0.0, 0.5, 100.0]),
)
def test_the_first_token_ranks_before_all_others(
    significance: list[float], data: st.DataObject, ratio: float, threshold: float
) -> None:
    """It is kept as if it had the largest significance and reached the threshold."""
    real = np.array([data.draw(st.booleans()) for _ in significance])
    mask = np.where(real, np.float32(0), PADDING)[None]
    values = np.array([significance], np.float32)
    raised = values.copy()
    raised[0, int(np.argmax(real))] = 1e6
    others = (mask, np.array([real.sum()], np.int32), np.float32(ratio), np.float32(threshold))
    (found,), (expected,) = (
        outputs_of(selection(first), array, *map(np.asarray, others))
        for first, array in ((True, values), (False, raised))
    )
    np.testing.assert_array_equal(found, expected)
