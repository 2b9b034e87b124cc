from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dynamic_tinybert.runtime.tasks.question_answering.squad_v2 import (
    ScoredAnswer,
    best_threshold,
    figures,
    score_answer,
)

TEXTS = st.lists(st.sampled_from(["the", "Mill", "mill.", "stone", "x", "y"]), min_size=1, max_size=4).map(" ".join)
QUESTIONS = st.lists(
    st.tuples(
        TEXTS.filter(lambda text: text.replace("the", "").strip()),
        st.lists(TEXTS, max_size=2),
        st.integers(-1000, 1000).map(lambda x: x / 7),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda question: question[2],
)


def scored(questions: list[tuple[str, list[str], float]]) -> list[ScoredAnswer]:
    return [ScoredAnswer(*score_answer(given, right), bool(right), score) for given, right, score in questions]


@pytest.fixture(scope="module")
def transformers_metrics() -> ModuleType:
    metrics: ModuleType = pytest.importorskip(
        "transformers.data.metrics.squad_metrics", reason="its figures are what is compared with"
    )
    return metrics


@example(  # 200 / 3 three times, and 100 taken off twice
    questions=[
        ("Mill", [], 1 / 7),
        ("Mill", [], -1 / 7),
        ("Mill", ["Mill"], -2 / 7),
        ("Mill", ["Mill Mill"], 0.0),
        ("Mill", ["Mill Mill"], 3 / 7),
        ("Mill Mill", ["Mill"], 2 / 7),
    ],
    threshold=0.0,
)
@given(questions=QUESTIONS, threshold=st.integers(-1000, 1000).map(lambda x: x / 5))
def test_figures_are_those_of_transformers(
    transformers_metrics: ModuleType, questions: list[tuple[str, list[str], float]], threshold: float
) -> None:
    oracle = [
        SimpleNamespace(qas_id=i, answers=[{"text": text} for text in right])
        for i, (_, right, _) in enumerate(questions)
    ]
    answers = {i: given for i, (given, _, _) in enumerate(questions)}
    scores = {i: score for i, (_, _, score) in enumerate(questions)}
    expected = transformers_metrics.squad_evaluate(oracle, answers, scores, threshold)
    found = figures(scored(questions), threshold)
    for metric in ("exact", "f1"):
        best = f"best_{metric}_thresh"
        assert figures(scored(questions), found[best])[metric] == pytest.approx(expected[f"best_{metric}"])
        if found[best] < min(scores.values()) or expected[best] == 0:
            expected.pop(best)  # where it is best to answer nothing, the script's 0 need not do that
            found.pop(best)
        elif found[best] < expected[best]:  # as good, but for rounding, which decides there
            assert figures(scored(questions), expected[best])[metric] == pytest.approx(expected[f"best_{metric}"])
            expected.pop(best)
            found.pop(best)
    assert found == pytest.approx(expected)


def test_worked_example() -> None:
    """By the official evaluate-v2.0.py's rules: two of three answered right, one without an answer."""
    questions = scored([("Ida Kroll", ["Ida Kroll"], -4.0), ("1931 by", ["1931"], -1.0), ("Ida Kroll", [], 2.0)])
    found = figures(questions, 0.0)
    assert found == pytest.approx(
        {
            "exact": 200 / 3, "f1": (100 + 200 / 3 + 100) / 3, "total": 3,
            "HasAns_exact": 50.0, "HasAns_f1": (100 + 200 / 3) / 2, "HasAns_total": 2,
            "NoAns_exact": 100.0, "NoAns_f1": 100.0, "NoAns_total": 1,
            "best_exact": 200 / 3, "best_exact_thresh": -4.0,
            "best_f1": (100 + 200 / 3 + 100) / 3, "best_f1_thresh": -1.0,
        }
    )  # fmt: skip
    assert figures(questions, 2.0)["NoAns_f1"] == 0


def test_a_question_that_was_not_read_scores_0_at_any_threshold() -> None:
    questions = [ScoredAnswer(0.0, 0.0, False, None), *scored([("x", ["x"], -1.0), ("x", [], 1.0)])]
    for threshold in (-5.0, 0.0, 5.0):
        assert figures(questions, threshold)["NoAns_f1"] == (0 if threshold > 1 else 50)
    best, at = best_threshold(questions, "f1")
    assert best == pytest.approx(200 / 3)
    assert at == -1.0


def test_answering_nothing_is_a_threshold_below_all_scores() -> None:
    questions = scored([("x", [], -3.0), ("y", [], -2.0)])
    best, threshold = best_threshold(questions, "exact")
    assert (best, threshold < -3) == (100, True)
    assert figures(questions, threshold)["exact"] == 100
