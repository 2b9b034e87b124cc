from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import opset15

from dynamic_tinybert.runtime.encoder import extension_library, ops

Array = npt.NDArray[Any]
PADDING = np.float32(-10000)


def graph(*shapes: list[int]) -> ov.Model:
    inputs = [opset15.parameter(shape, np.float32) for shape in shapes]
    return ov.Model([ops.context_significance(*(node.output(0) for node in inputs))], inputs)


@pytest.fixture(scope="module")
def compiled() -> ov.CompiledModel:
    return extension_library.core().compile_model(graph([-1, -1], [-1, -1]), "CPU", {"INFERENCE_NUM_THREADS": 1})


def naive(question: list[int], real: list[int]) -> list[int]:
    """By slices of the protected tokens: what has one on both sides is a word of the question. Padding is not there."""
    tokens = [i for i, r in enumerate(real) if r]
    protected = [question[i] for i in tokens]
    significance = [1] * len(question)
    for k, i in enumerate(tokens):
        if not all(protected) and protected[max(0, k - 1) : k + 2] == [1, 1, 1]:
            significance[i] = 0
    return significance


@settings(deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=9, max_size=9), min_size=1, max_size=3)
)
def test_words_of_the_question_do_not_matter(compiled: ov.CompiledModel, batch: list[list[tuple[int, int]]]) -> None:
    question, real = np.array(batch, np.float32).transpose(2, 0, 1)
    expected = [naive(*zip(*row, strict=True)) for row in [[(q, r) for q, r in row] for row in batch]]
    found = compiled([np.ascontiguousarray(question), np.where(real > 0, np.float32(0), PADDING)])[0]
    assert found.tolist() == expected


def test_of_a_pair_the_special_tokens_and_the_context_are_left(compiled: ov.CompiledModel) -> None:
    question = np.array([[1, 1, 1, 1, 0, 0, 0, 0]], np.float32)  # [CLS] who ? [SEP] it was me [SEP]
    found = compiled([question, np.zeros_like(question)])[0]
    assert found.tolist() == [[1, 0, 0, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize("length", [0, 1, 2])
def test_short_sequences_have_no_words_of_a_question(compiled: ov.CompiledModel, length: int) -> None:
    assert (
        compiled([np.ones((2, length), np.float32), np.zeros((2, length), np.float32)])[0].tolist()
        == [[1] * length] * 2
    )


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"the inputs have shapes \[2,5\] and \[2,6\]"):
        graph([2, 5], [2, 6])
    question, mask = opset15.parameter([2, 5], np.int32), opset15.parameter([2, 5], np.float32)
    with pytest.raises(RuntimeError, match="input 0 is of type i32; convert it to f32"):
        ops.context_significance(question.output(0), mask.output(0))
