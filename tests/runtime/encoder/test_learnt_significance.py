from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import opset15

from dynamic_tinybert.modeling.scorer import Scorer, scorer_weights
from dynamic_tinybert.runtime.encoder import extension_library, ops
from dynamic_tinybert.runtime.encoder.scorer import score

Floats = npt.NDArray[np.float32]
PADDING = -10000.0


INT12 = " with integers"
PATHS = [*extension_library.available_isas(), *(isa + INT12 for isa in extension_library.available_isas())]


@pytest.fixture(scope="module", params=PATHS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test on every path that this CPU has; ops are made while the variable is set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNAMIC_TINYBERT_ISA", request.param.removesuffix(INT12))
        yield request.param


def tolerance(isa: str) -> float:
    return 3e-3 if isa.endswith(INT12) else 1e-5  # 12 bits are 0.0021 off in one of some hundred batches


@cache
def scorer(
    hidden: int = 40, width: int = 32, kernel_sizes: tuple[int, ...] = (3, 9), heads: int = 16, head_size: int = 4
) -> Scorer:
    torch.manual_seed(hidden + width)
    made = Scorer(hidden, width, kernel_sizes, heads=heads, head_size=head_size)
    for projection in (made.match_token, made.match_question):  # begin alike, but neither may be taken for the other
        projection.reset_parameters()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2)  # so that the sigmoid is not near one half everywhere
    return made


def inputs_of(hidden: int) -> list[ov.Node]:
    return [opset15.parameter(shape, np.float32) for shape in ([-1, -1, hidden], [-1, -1], [-1, -1])]


@cache
def compiled(isa: str, made: Scorer, threads: int = 1, streams: int = 1) -> ov.CompiledModel:
    assert extension_library.isa() == isa.removesuffix(INT12)
    inputs = inputs_of(made.input.in_features // 2)
    state, question, mask = (node.output(0) for node in inputs)
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams}
    significance = score(state, question, mask, scorer_weights(made), int12=isa.endswith(INT12))
    return extension_library.core().compile_model(ov.Model([significance], inputs), "CPU", options)


def run(model: ov.CompiledModel, state: Floats, question: Floats, mask: Floats) -> Floats:
    request = model.create_infer_request()
    request.start_async([state, question, mask])
    request.wait()
    result: Floats = request.get_output_tensor(0).data.copy()
    return result


def batch(lengths: list[int], questions: list[int], hidden: int = 40, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """States, questions that begin each sequence, and masks of padding behind it."""
    positions = np.arange(max(lengths))
    state = np.random.default_rng(seed).standard_normal((len(lengths), len(positions), hidden), np.float32)
    question = (positions < np.array(questions)[:, None]).astype(np.float32)
    mask = np.where(positions < np.array(lengths)[:, None], 0, PADDING).astype(np.float32)
    return state, question, mask


def expected(made: Scorer, state: Floats, question: Floats, mask: Floats) -> Floats:
    real = torch.from_numpy((mask == 0).astype(np.float32))
    with torch.no_grad():
        significance: Floats = made(torch.from_numpy(state), torch.from_numpy(question), real).numpy()
    return significance


@pytest.mark.parametrize("length", [1, 2, 23, 24, 25, 171])
@pytest.mark.parametrize(
    ("hidden", "width", "kernel_sizes"), [(40, 32, (3, 9)), (384, 64, (9, 17, 33)), (1025, 16, (3,)), (7, 16, ())]
)
def test_equals_the_scorer_in_pytorch(
    isa: str, length: int, hidden: int, width: int, kernel_sizes: tuple[int, ...]
) -> None:
    made = scorer(hidden, width, kernel_sizes)
    inputs = batch([length], [min(length, 12)], hidden)
    np.testing.assert_allclose(run(compiled(isa, made), *inputs), expected(made, *inputs), rtol=0, atol=tolerance(isa))


@pytest.mark.parametrize("width", [1, 17, 24])
def test_any_width_is_filled_up(isa: str, width: int) -> None:
    # hidden size, width and heads alike: no axis may be taken for another
    made = scorer(hidden=width, width=width, heads=width, head_size=3)
    inputs = batch([30], [5], hidden=width)
    np.testing.assert_allclose(run(compiled(isa, made), *inputs), expected(made, *inputs), rtol=0, atol=tolerance(isa))


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_equals_pytorch_in_any_batch(isa: str, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    questions = [data.draw(st.integers(0, length)) for length in lengths]
    state, question, mask = batch(lengths, questions, seed=data.draw(st.integers(0, 99)))
    got, wanted = run(compiled(isa, scorer()), state, question, mask), expected(scorer(), state, question, mask)
    np.testing.assert_allclose(got[mask == 0], wanted[mask == 0], rtol=0, atol=tolerance(isa))
    assert not got[mask != 0].any()


def test_each_sequence_as_if_alone_and_unpadded(isa: str) -> None:
    lengths, questions = [50, 7, 26], [9, 7, 0]
    state, question, mask = batch(lengths, questions)
    together = run(compiled(isa, scorer()), state, question, mask)
    for b, n in enumerate(lengths):
        alone = run(compiled(isa, scorer()), *(array[b : b + 1, :n] for array in (state, question, mask)))
        np.testing.assert_array_equal(together[b, :n], alone[0])


def test_vector_paths_agree_to_the_bit() -> None:
    found = []
    for name in extension_library.available_isas():
        if name != "scalar":
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("DYNAMIC_TINYBERT_ISA", name)
                found.append(run(compiled(name + INT12, scorer(hidden=39)), *batch([50, 20], [9, 4], hidden=39)))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_padding_may_hold_anything(isa: str) -> None:
    state, question, mask = batch([50, 20], [9, 4])
    clean = run(compiled(isa, scorer()), state, question, mask)
    state[1, 20:] = np.nan
    np.testing.assert_array_equal(run(compiled(isa, scorer()), state, question, mask), clean)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_tokens_that_the_mask_leaves_out_were_never_there(isa: str, data: st.DataObject) -> None:
    state, question, mask = batch([40, 31, 40], [9, 4, 0])
    left_out = np.array(data.draw(st.lists(st.lists(st.booleans(), min_size=40, max_size=40), min_size=3, max_size=3)))
    mask[left_out] = PADDING
    found = run(compiled(isa, scorer()), state, question, mask)
    for b, row in enumerate(mask == 0):
        np.testing.assert_array_equal(found[b, ~row], question[b, ~row])
        if row.any():
            alone = run(compiled(isa, scorer()), *(array[b : b + 1, row] for array in (state, question, mask)))
            np.testing.assert_array_equal(found[b, row], alone[0])


def test_nan_in_a_real_token_is_not_hidden(isa: str) -> None:
    state, question, mask = batch([20], [4])
    state[0, 15, 3] = np.nan
    assert np.isnan(run(compiled(isa, scorer()), state, question, mask)[0, 15])


@pytest.mark.parametrize("num_question", [0, 1, 15, 16, 17, 33, 40])
@pytest.mark.parametrize(("heads", "head_size"), [(1, 1), (3, 7), (4, 32), (20, 16)])
def test_any_heads_and_any_question(isa: str, heads: int, head_size: int, num_question: int) -> None:
    made = scorer(heads=heads, head_size=head_size)
    inputs = batch([40], [num_question])
    np.testing.assert_allclose(run(compiled(isa, made), *inputs), expected(made, *inputs), rtol=0, atol=tolerance(isa))


def test_same_bits_for_any_number_of_threads(isa: str) -> None:
    inputs = batch([171, 90], [12, 30])
    first = run(compiled(isa, scorer(), threads=1), *inputs)
    for threads in (2, 3):
        np.testing.assert_array_equal(run(compiled(isa, scorer(), threads=threads), *inputs), first)


def test_concurrent_requests_do_not_disturb_each_other(isa: str) -> None:
    model = compiled(isa, scorer(), threads=2, streams=2)
    cases = [batch([n], [n // 3], seed=n) for n in range(10, 90, 5)]
    alone = [run(model, *case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        for wanted, got in zip(alone * 5, pool.map(lambda case: run(model, *case), cases * 5), strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 24}, "width 24 is not a multiple of 16"),
        ({"heads": 0}, "0 heads of 2 numbers; give at least one of each"),
        ({"head_size": 0}, "16 heads of 0 numbers"),
        ({"kernel_sizes": [4]}, "sees 4 tokens; it must be an odd number"),
        ({"kernel_sizes": [2**63 - 1]}, "the number of tokens that a convolution sees is 9223372036854775807; at most"),
        ({"width": 2**62}, "width is 4611686018427387904; at most 65536 is allowed"),
        ({"heads": 2**62}, "heads is 4611686018427387904; at most 65536 is allowed"),
        ({"head_size": 2**60}, "head_size is 1152921504606846976; at most 65536 is allowed"),
        ({"state": [1, 4, 2**59]}, "the width of the states is 576460752303423488; at most 65536 is allowed"),
        ({"scorer": 100}, r"the scorer has 100 numbers where width 16 .* need 1457"),
        ({"state": [1, 4]}, r"the state has shape \[1,4\]"),
        ({"question": [1, 5]}, r"protected has shape \[1,5\]"),
        ({"mask": [2, 4]}, r"the mask has shape \[2,4\]"),
        ({"kind": np.float64}, "the state is of type f64; convert it to f32"),
    ],
)
def test_refuses_wrong_inputs_when_the_graph_is_built(change: dict[str, object], message: str) -> None:
    case: dict[str, Any] = {"state": [1, 4, 6], "question": [1, 4], "mask": [1, 4], "kind": np.float32}
    case |= {"width": 16, "heads": 16, "head_size": 2, "kernel_sizes": [3]}
    case["scorer"] = (2 * 6 + 2) * 16 + (2 * 2 * 6 + 16) * 16 + (3 + 16 + 2 + 16) * 16 + 1
    case |= change
    inputs = [opset15.parameter(case["state"], case["kind"])]
    inputs += [opset15.parameter(case[name], np.float32) for name in ("question", "mask")]
    inputs.append(opset15.parameter([case["scorer"]], np.float32))
    sizes = {name: case[name] for name in ("width", "heads", "head_size", "kernel_sizes")}
    with pytest.raises(RuntimeError, match=message):
        ops.learnt_significance(*(node.output(0) for node in inputs), **sizes)
