import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_model import letter_tokenizer

from dynamic_tinybert.runtime.inference import WindowOutput
from dynamic_tinybert.runtime.spans import best_spans, pipeline_answers, squad_answer
from dynamic_tinybert.runtime.windows import Window, WindowTokenizer

CONTEXT = "abc de. Fg, hi jkl mn Abc de? " * 3


@pytest.fixture(scope="module")
def tokenize(tmp_path_factory: pytest.TempPathFactory) -> WindowTokenizer:
    return WindowTokenizer(letter_tokenizer(tmp_path_factory.mktemp("letters")))


def spans(n: int, max_length: int) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(n) for j in range(i, min(n, i + max_length)))


def random_outputs(windows: list[Window], seed: int) -> list[WindowOutput]:
    random = np.random.default_rng(seed)
    # longer than the windows, as in a padded batch
    start, end = (random.normal(0, 3, (len(windows), 60)).astype(np.float32) for _ in range(2))
    return [WindowOutput(s, e, {}) for s, e in zip(start, end, strict=True)]


@given(st.integers(1, 12), st.integers(1, 100), st.integers(1, 15), st.integers(0, 2**32 - 1))
def test_best_spans_against_a_loop(n: int, count: int, max_length: int, seed: int) -> None:
    start, end = np.random.default_rng(seed).normal(size=(2, n))
    expected = sorted(((start[i] + end[j], i, j) for i, j in spans(n, max_length)), reverse=True)[:count]
    first, last, scores = best_spans(start, end, count=count, max_length=max_length)
    assert list(zip(scores.tolist(), first.tolist(), last.tolist(), strict=True)) == expected


def test_ties_go_to_the_first_span() -> None:
    first, last, _ = best_spans(np.zeros(4), np.zeros(4), count=10, max_length=2)
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == list(spans(4, 2))


def probabilities(output: WindowOutput, window: Window) -> tuple[npt.NDArray[np.float64], ...]:
    """Of each token as start and as end, over [CLS] and the context; 0 elsewhere."""
    start, end = (np.full(60, -np.inf) for _ in range(2))
    for place in (slice(0, 1), window.context):
        start[place], end[place] = output.start_logits[place], output.end_logits[place]
    return tuple(torch.from_numpy(logits).softmax(0).numpy() for logits in (start, end))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("max_seq_len", [200, 30])
def test_scores_of_all_spans_are_products_of_softmaxes(tokenize: WindowTokenizer, seed: int, max_seq_len: int) -> None:
    windows = tokenize("who?", CONTEXT[:50], max_seq_len=max_seq_len, doc_stride=8)
    outputs = random_outputs(windows, seed)
    answers = pipeline_answers(
        CONTEXT,
        windows,
        outputs,
        top_k=10_000,
        max_answer_len=3,
        handle_impossible_answer=True,
        align_to_words=False,
    )
    expected: dict[str, float] = {}
    empty = math.inf
    for window, output in zip(windows, outputs, strict=True):
        start, end = probabilities(output, window)
        empty = min(empty, start[0] * end[0])
        at = window.context.start
        offsets = window.encoding.offsets[window.context]
        for i, j in spans(len(offsets), 3):
            text = CONTEXT[offsets[i][0] : offsets[j][1]].lower()
            expected[text] = expected.get(text, 0) + start[at + i] * end[at + j]
    assert {a["answer"].lower(): a["score"] for a in answers} == pytest.approx({**expected, "": empty}, rel=1e-5)
    assert [a["score"] for a in answers] == sorted((a["score"] for a in answers), reverse=True)
    assert all(a["answer"] == CONTEXT[a["start"] : a["end"]] for a in answers)


def peaked(window: Window, start: int, end: int) -> WindowOutput:
    """Logits that leave no doubt about a span of the context's tokens."""
    start_logits, end_logits = np.zeros((2, len(window)), np.float32)
    start_logits[window.context.start + start] = end_logits[window.context.start + end] = 50
    return WindowOutput(start_logits, end_logits, {})


@pytest.mark.parametrize(("align", "place"), [(True, (8, 14)), (False, (9, 13))])
def test_aligning_widens_to_words(tokenize: WindowTokenizer, align: bool, place: tuple[int, int]) -> None:
    windows = tokenize("who?", CONTEXT, max_seq_len=128, doc_stride=0)
    (answer,) = pipeline_answers(
        CONTEXT,
        windows,
        [peaked(windows[0], 7, 9)],  # from the g of "Fg" to the h of "hi"
        top_k=1,
        max_answer_len=15,
        handle_impossible_answer=False,
        align_to_words=align,
    )
    assert (answer["start"], answer["end"]) == place
    assert answer["score"] == pytest.approx(1)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_squad_answer_against_a_loop(tokenize: WindowTokenizer, seed: int, max_answer_len: int) -> None:
    windows = tokenize("who?", CONTEXT, max_seq_len=30, doc_stride=8)
    assert len(windows) > 2
    outputs = random_outputs(windows, seed)
    best = (-math.inf, "")
    for window, output in zip(windows, outputs, strict=True):
        at = window.context.start
        offsets = window.encoding.offsets[window.context]
        for i, j in spans(len(offsets), max_answer_len):
            text = CONTEXT[offsets[i][0] : offsets[j][1]]
            best = max(best, (output.start_logits[at + i] + output.end_logits[at + j], text))
    assert squad_answer(CONTEXT, windows, outputs, max_answer_len=max_answer_len) == best[1]
