from types import ModuleType

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dynamic_tinybert.runtime.tasks.question_answering import squad, squad_files
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.squad import exact_match, f1, normalize

WORDS = st.lists(
    st.sampled_from(
        ["the", "A", "an", "Mill", "mill.", "“stone”", "naïve", "3.5%", "--", "of", "\u00a0", "x-y", "x", "y"]
    ),
    max_size=6,
).map(" ".join)


@pytest.fixture(scope="module")
def torchmetrics_text() -> ModuleType:
    text: ModuleType = pytest.importorskip("torchmetrics.text", reason="its metric is what is compared with")
    return text


@given(prediction=WORDS, answers=st.lists(WORDS, min_size=1, max_size=3))
@example(prediction="the Mill", answers=["A mill."])
@example(prediction="mill of stone", answers=["stone mill", "mill"])
def test_scores_are_those_of_torchmetrics(torchmetrics_text: ModuleType, prediction: str, answers: list[str]) -> None:
    assume(all(map(normalize, answers)))  # else torchmetrics follows SQuAD 2.0
    metric = torchmetrics_text.SQuAD()
    expected = metric(
        [{"prediction_text": prediction, "id": "1"}],
        [{"answers": {"answer_start": [0] * len(answers), "text": answers}, "id": "1"}],
    )
    assert exact_match(prediction, answers) == expected["exact_match"]
    assert f1(prediction, answers) == pytest.approx(float(expected["f1"]), abs=1e-3)


def test_texts_of_articles_alone() -> None:
    """As the official script of v1.1 has it: equal, but without a word in common."""
    assert exact_match("the", ["a"]) == 100
    assert f1("the", ["a"]) == 0


def test_questions_can_be_imported_from_here() -> None:
    assert squad.Example is Example
    assert squad.read_squad is squad_files.read_squad
