"""The empty answer, where a bundle has a threshold for it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from dynamic_tinybert.calibration.recalibrated import write_recalibrated
from dynamic_tinybert.runtime import QuestionAnswerer
from dynamic_tinybert.runtime.bundles.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.question_answering import plan
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import evaluate
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.inference import WindowOutput
from dynamic_tinybert.runtime.tasks.question_answering.options import Merge
from dynamic_tinybert.runtime.tasks.windows import Window

from support.tiny import tiny_bert, write_tiny_bundle

CONTEXT = "the fox was in the box and the cat was in the hat . " * 4  # two windows
QUESTION = "what was in the box ?"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(
        write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", tiny_bert(max_position_embeddings=64))
    )


def with_threshold(plain: Bundle, folder: Path, threshold: float | None) -> Bundle:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return write_recalibrated(plain, folder, None, plain.length_configs, threshold)


def test_the_bundle_keeps_its_threshold(plain: Bundle, tmp_path: Path) -> None:
    assert plain.no_answer_threshold is None
    made = with_threshold(plain, tmp_path / "made", -1.5)
    assert open_bundle(made.path).no_answer_threshold == -1.5
    again = with_threshold(made, tmp_path / "again", None)  # calibrated anew without unanswerable questions
    assert open_bundle(again.path).no_answer_threshold == -1.5


def test_the_threshold_decides_whether_the_empty_answer_comes_first(plain: Bundle, tmp_path: Path) -> None:
    example = Example("x", QUESTION, CONTEXT, (), "", is_impossible=True)
    result = evaluate(LengthAdaptiveModel(plain), [example], max_answer_len=15)
    score = result.if_answered[0].no_answer_score
    assert score is not None
    assert result.question_windows[0] > 1
    ranked = QuestionAnswerer(LengthAdaptiveModel(plain))(
        QUESTION, CONTEXT, top_k=500, handle_impossible_answer=True, align_to_words=False
    )
    assert isinstance(ranked, list)
    (empty,) = [answer for answer in ranked if not answer["answer"]]
    others = [answer for answer in ranked if answer["answer"]]
    for threshold, wins in ((score - 0.01, True), (score + 0.01, False)):
        answerer = QuestionAnswerer(LengthAdaptiveModel(with_threshold(plain, tmp_path / "bundle", threshold)))
        for top_k in (1, 3, 500):
            answers = answerer(QUESTION, CONTEXT, top_k=top_k, handle_impossible_answer=True, align_to_words=False)
            first, *rest = answers if isinstance(answers, list) else [answers]
            assert (first["answer"] == "") == wins
            assert len(rest) < top_k
            if top_k == 500:
                assert [a for a in (first, *rest) if a["answer"]] == others
                (own,) = [a for a in (first, *rest) if not a["answer"]]
                assert own == {**empty, "score": pytest.approx(empty["score"], rel=1e-5)}
                below = [a["score"] for a in rest if a["answer"]]
                assert below == sorted(below, reverse=True)
        assert answerer(QUESTION, CONTEXT)["answer"]  # not asked for


@pytest.mark.parametrize(("threshold", "wins"), [(3.0, False), (0.5, True)])
@pytest.mark.parametrize("merge", ["span", "text"])
@pytest.mark.parametrize("top_k", [1, 2])
def test_the_threshold_is_obeyed_where_the_empty_answer_is_likeliest(
    plain: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threshold: float,
    wins: bool,
    merge: Merge,
    top_k: int,
) -> None:
    """[CLS] has 2.5 + 2.5, the first token of each window 2 + 2: a score of 1."""

    def outputs_of(model: object, questions: list[list[Window]], **options: object) -> list[list[WindowOutput]]:
        outputs = []
        for own in questions:
            logits = [np.full(len(window), -10, np.float32) for window in own]
            for array, window in zip(logits, own, strict=True):
                array[0], array[window.context.start] = 2.5, 2
            outputs.append([WindowOutput(array, array, {}) for array in logits])
        return outputs

    monkeypatch.setattr(plan, "run_windows", outputs_of)
    answerer = QuestionAnswerer(LengthAdaptiveModel(with_threshold(plain, tmp_path / "bundle", threshold)))
    found = answerer(QUESTION, CONTEXT, top_k=top_k, merge=merge, handle_impossible_answer=True)
    answers = found if isinstance(found, list) else [found]
    assert len(answers) == top_k
    assert [answer["answer"] == "" for answer in answers] == [wins, not wins][:top_k]


def test_evaluation_goes_by_the_threshold_of_the_bundle(plain: Bundle, tmp_path: Path) -> None:
    examples = [
        Example("1", QUESTION, CONTEXT, ("the fox",), ""),
        Example("2", "where was the hat ?", CONTEXT, (), "", is_impossible=True),
    ]
    for threshold, empty in ((-1e6, True), (1e6, False)):
        model = LengthAdaptiveModel(with_threshold(plain, tmp_path / "bundle", threshold))
        result = evaluate(model, examples)
        assert result.no_answer_threshold == threshold
        assert [prediction == "" for prediction in result.predictions] == [empty, empty]
        assert result.question_exact_match[1] == 100 * empty
        only = evaluate(model, examples[:1])  # nothing is unanswerable: never empty
        assert only.predictions[0]
        assert only.squad_v2 is None
    at_zero = evaluate(LengthAdaptiveModel(plain), examples)
    assert at_zero.no_answer_threshold == 0
    scores = np.array([question.no_answer_score for question in at_zero.if_answered])
    assert [prediction == "" for prediction in at_zero.predictions] == (scores > 0).tolist()
