import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.answers import Answer, pipeline_answers
from dynamic_tinybert.runtime.tasks.question_answering.inference import WindowOutput
from dynamic_tinybert.runtime.tasks.question_answering.options import AnswerOptions, Merge
from dynamic_tinybert.runtime.tasks.question_answering.spans import best_spans, squad_answer
from dynamic_tinybert.runtime.tasks.windows import Window, WindowTokenizer

from support.tiny import letter_tokenizer

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
    torch = pytest.importorskip("torch", reason="PyTorch's softmax is what is compared with")
    return tuple(torch.from_numpy(logits).softmax(0).numpy() for logits in (start, end))


def answers_of(
    context: str, windows: list[Window], outputs: list[WindowOutput], merge: Merge = "span", *, align: bool = False
) -> list[Answer]:
    """All answers of up to three tokens."""
    options = AnswerOptions(
        top_k=10_000, max_answer_len=3, handle_impossible_answer=True, align_to_words=align, merge=merge
    )
    return pipeline_answers(context, windows, outputs, options)


def span_probabilities(
    windows: list[Window], outputs: list[WindowOutput], *, align: bool
) -> Iterator[tuple[int, tuple[int, int], float]]:
    """Window, characters and probability of each span of up to three tokens."""
    for index, (window, output) in enumerate(zip(windows, outputs, strict=True)):
        start, end = probabilities(output, window)
        at, encoding = window.context.start, window.encoding
        for i, j in spans(window.context.stop - at, 3):
            begin, stop = encoding.offsets[at + i][0], encoding.offsets[at + j][1]
            if align:
                begin = encoding.word_to_chars(encoding.token_to_word(at + i), 1)[0]
                stop = encoding.word_to_chars(encoding.token_to_word(at + j), 1)[1]
            yield index, (begin, stop), start[at + i] * end[at + j]


def empty_score(windows: list[Window], outputs: list[WindowOutput]) -> float:
    both = (probabilities(output, window) for window, output in zip(windows, outputs, strict=True))
    return min(float(start[0] * end[0]) for start, end in both)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("max_seq_len", [200, 30])
@pytest.mark.parametrize("align", [False, True])
def test_merged_by_text_scores_are_sums_of_products_of_softmaxes(
    tokenize: WindowTokenizer, seed: int, max_seq_len: int, align: bool
) -> None:
    windows = tokenize("who?", CONTEXT[:50], max_seq_len=max_seq_len, doc_stride=8)
    outputs = random_outputs(windows, seed)
    answers = answers_of(CONTEXT, windows, outputs, "text", align=align)
    expected: dict[str, float] = {"": empty_score(windows, outputs)}
    for _, (begin, stop), probability in span_probabilities(windows, outputs, align=align):
        text = CONTEXT[begin:stop].lower()
        expected[text] = expected.get(text, 0) + probability
    assert {a["answer"].lower(): a["score"] for a in answers} == pytest.approx(expected, rel=1e-5)
    assert [a["score"] for a in answers] == sorted((a["score"] for a in answers), reverse=True)
    assert all(a["answer"] == CONTEXT[a["start"] : a["end"]] for a in answers)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("max_seq_len", [200, 30])
@pytest.mark.parametrize("align", [False, True])
def test_a_place_has_the_score_of_the_window_surest_of_it(
    tokenize: WindowTokenizer, seed: int, max_seq_len: int, align: bool
) -> None:
    windows = tokenize("who?", CONTEXT[:50], max_seq_len=max_seq_len, doc_stride=8)
    outputs = random_outputs(windows, seed)
    answers = answers_of(CONTEXT, windows, outputs, align=align)
    by_window: dict[tuple[int, int, int], float] = {}
    for index, place, probability in span_probabilities(windows, outputs, align=align):
        by_window[index, *place] = by_window.get((index, *place), 0) + probability
    expected: dict[tuple[int, int], float] = {(0, 0): empty_score(windows, outputs)}
    for (_, begin, stop), probability in by_window.items():
        expected[begin, stop] = max(expected.get((begin, stop), 0), probability)
    assert {(a["start"], a["end"]): a["score"] for a in answers} == pytest.approx(expected, rel=1e-5)
    assert [a["score"] for a in answers] == sorted((a["score"] for a in answers), reverse=True)
    assert all(a["answer"] == CONTEXT[a["start"] : a["end"]] for a in answers)


def sure(tokenize: WindowTokenizer, context: str, doc_stride: int, *places: tuple[int, int]) -> list[Answer]:
    """Answers of windows of up to 14 tokens of the context, each sure, and equally so, of the places that it holds."""
    windows = tokenize("who?", context, max_seq_len=21, doc_stride=doc_stride)
    outputs = []
    for window in windows:
        start, end = np.zeros((2, len(window)), np.float32)
        for at in range(window.context.start, window.context.stop):
            offsets = window.encoding.offsets[at]
            start[at] = 50 * any(offsets[0] == place[0] for place in places)
            end[at] = 50 * any(offsets[1] == place[1] for place in places)
        outputs.append(WindowOutput(start, end, {}))
    return answers_of(context, windows, outputs)


@pytest.mark.parametrize("doc_stride", [0, 4, 8, 12])
def test_how_often_windows_overlap_does_not_change_a_score(tokenize: WindowTokenizer, doc_stride: int) -> None:
    answers = sure(tokenize, "a" + " x" * 30 + " m" + " y" * 30, doc_stride, (62, 63))
    assert (answers[0]["start"], answers[0]["end"]) == (62, 63)
    assert answers[0]["score"] == pytest.approx(1)
    assert sum(answer["answer"] == "m" for answer in answers) == 1


def test_equal_texts_at_two_places_are_two_answers(tokenize: WindowTokenizer) -> None:
    near = sure(tokenize, "m x x x M x", 4, (0, 1), (8, 9))  # in one window, which shares its belief between them
    likely = [answer for answer in near if answer["score"] > 0.01]
    assert [(a["start"], a["answer"]) for a in likely] == [(0, "m"), (8, "M")]
    assert [a["score"] for a in likely] == pytest.approx([0.25, 0.25])
    far = sure(tokenize, "m" + " x" * 30 + " m", 4, (0, 1), (62, 63))
    mentions = [answer for answer in far if answer["answer"] == "m"]
    assert [a["start"] for a in mentions] == [0, 62]
    assert [a["score"] for a in mentions] == pytest.approx([1, 1])


def test_the_place_is_that_of_the_surest_mention(tokenize: WindowTokenizer) -> None:
    context = "m" + " x" * 30 + " m"
    windows = tokenize("who?", context, max_seq_len=21, doc_stride=4)
    doubtful, *others, sure_one = windows
    outputs = [peaked(doubtful, 0, 0, height=4), *(peaked(w, 1, 1, height=0) for w in others)]
    at = sure_one.context.stop - sure_one.context.start - 1
    best = answers_of(context, windows, [*outputs, peaked(sure_one, at, at)])[0]
    assert (best["start"], best["end"], best["answer"]) == (62, 63, "m")


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 200), st.integers(0, 12), st.booleans())
def test_scores_are_in_0_to_1(
    tokenize: WindowTokenizer, seed: int, height: float, doc_stride: int, align: bool
) -> None:
    windows = tokenize("who?", CONTEXT, max_seq_len=21, doc_stride=doc_stride)
    outputs = [
        WindowOutput(np.float32(height) * o.start_logits, np.float32(height) * o.end_logits, {})
        for o in random_outputs(windows, seed)
    ]
    assert all(0 <= answer["score"] <= 1 for answer in answers_of(CONTEXT, windows, outputs, align=align))


def test_an_unknown_way_to_merge_is_refused(tokenize: WindowTokenizer) -> None:
    windows = tokenize("who?", "abc", max_seq_len=30, doc_stride=0)
    with pytest.raises(InvalidInputError, match="merge must be 'span' or 'text', not 'words'"):
        answers_of("abc", windows, random_outputs(windows, 0), "words")


def peaked(window: Window, start: int, end: int, height: float = 50) -> WindowOutput:
    """Logits that, by default, leave no doubt about a span of the context's tokens."""
    start_logits, end_logits = np.zeros((2, len(window)), np.float32)
    start_logits[window.context.start + start] = end_logits[window.context.start + end] = height
    return WindowOutput(start_logits, end_logits, {})


@pytest.mark.parametrize(("align", "place"), [(True, (8, 14)), (False, (9, 13))])
def test_aligning_widens_to_words(tokenize: WindowTokenizer, align: bool, place: tuple[int, int]) -> None:
    windows = tokenize("who?", CONTEXT, max_seq_len=128, doc_stride=0)
    (answer,) = pipeline_answers(
        CONTEXT,
        windows,
        [peaked(windows[0], 7, 9)],  # from the g of "Fg" to the h of "hi"
        AnswerOptions(align_to_words=align),
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
