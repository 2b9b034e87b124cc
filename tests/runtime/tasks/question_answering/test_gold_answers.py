from dataclasses import replace

import numpy as np
import pytest

from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import evaluate
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.gold_answers import gold_answers
from dynamic_tinybert.runtime.tasks.question_answering.squad import f1
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer

from support.tiny import tiny_bert, tiny_bundle

FULL = LengthConfig.full(3)
CONTEXT = "the who was in 1 and what of the 2 where in the 3 was of a b c"
ANSWERED = [Example(str(k), f"what {k % 10}", CONTEXT, ("in 1", "the 2"), "") for k in range(12)]
UNANSWERED = [Example(e.id, e.question, e.context, (), "") for e in ANSWERED]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LengthAdaptiveModel:
    folder = tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    return LengthAdaptiveModel.from_pretrained(folder, precision="f32")


def test_answers_of_the_data_are_used_if_all_are_there(model: LengthAdaptiveModel) -> None:
    made = gold_answers(model, ANSWERED)
    assert made.scored_by == "answers"
    found = made.evaluate(model, FULL, batch_size=4, span=slice(2, 9))
    expected = evaluate(model, ANSWERED[2:9], length_config="full", batch_size=4)
    assert found.question_f1 == expected.question_f1
    assert found.f1 == expected.f1


def test_to_choose_both_count_alike(model: LengthAdaptiveModel) -> None:
    config, part = LengthConfig((1, 0.4, 0.2)), slice(2, 9)
    made = gold_answers(model, ANSWERED, to_choose=True)
    assert made.scored_by == "answers and agreement"
    both = made.evaluate(model, config, batch_size=4, span=part)
    answers = evaluate(model, ANSWERED[part], length_config=config, batch_size=4)
    agreement = gold_answers(model, UNANSWERED).evaluate(model, config, batch_size=4, span=part)
    assert answers.f1 != agreement.f1
    for kind in ("question_f1", "question_exact_match"):
        halves = [getattr(scored, kind) for scored in (answers, agreement)]
        np.testing.assert_allclose(getattr(both, kind), np.mean(halves, axis=0))
    assert both.f1 == pytest.approx((answers.f1 + agreement.f1) / 2)


def test_without_answers_choosing_goes_by_agreement(model: LengthAdaptiveModel) -> None:
    assert gold_answers(model, UNANSWERED, to_choose=True).scored_by == "agreement"


def test_a_missing_answer_leaves_the_others_theirs(model: LengthAdaptiveModel) -> None:
    config, mixed = LengthConfig((1, 0.4, 0.2)), [*ANSWERED[:6], *UNANSWERED[6:]]
    by_answers = evaluate(model, ANSWERED, length_config=config, batch_size=4).question_f1
    by_agreement = gold_answers(model, UNANSWERED).evaluate(model, config, batch_size=4).question_f1
    made = gold_answers(model, mixed)
    assert made.scored_by == "answers and agreement"
    found = made.evaluate(model, config, batch_size=4).question_f1
    np.testing.assert_allclose(found, [*by_answers[:6], *by_agreement[6:]])
    both = gold_answers(model, mixed, to_choose=True).evaluate(model, config, batch_size=4).question_f1
    halves = np.mean([by_answers, by_agreement], axis=0)
    np.testing.assert_allclose(both, [*halves[:6], *by_agreement[6:]])


def test_unanswerable_questions_are_right_without_an_answer(model: LengthAdaptiveModel) -> None:
    impossible = [replace(e, answers=(), is_impossible=True) for e in ANSWERED[6:]]
    mixed = [*ANSWERED[:6], *impossible]
    made = gold_answers(model, mixed, to_choose=True)
    full = evaluate(model, mixed, length_config="full", batch_size=4)
    assert full.squad_v2 is not None
    assert made.no_answer_threshold == full.squad_v2["best_f1_thresh"]
    found = made.evaluate(model, FULL, batch_size=4, span=slice(3, 12))
    for prediction, score, example in zip(found.predictions, found.question_f1, mixed[3:], strict=True):
        if example.is_impossible:
            assert score == 100 * (prediction == "")
    reporting = gold_answers(model, mixed, no_answer_threshold=-1e6)  # all answers are empty
    assert reporting.scored_by == "answers"
    assert reporting.evaluate(model, FULL, batch_size=4).question_f1 == (0.0,) * 6 + (100.0,) * 6


def test_agreement_is_the_expected_score_by_what_full_believes(model: LengthAdaptiveModel) -> None:
    """Against PyTorch: softmax of the start times softmax of the end, the ten likeliest texts, their F1."""
    made = gold_answers(model, UNANSWERED)
    result = made.evaluate(model, LengthConfig((1, 0.4, 0.2)), batch_size=1)
    torch = pytest.importorskip("torch", reason="PyTorch's model is what is compared with")
    bert, tokenize = tiny_bert(), WindowTokenizer(model.tokenizer_file)
    for example, prediction, score in zip(UNANSWERED, result.predictions, result.question_f1, strict=True):
        (window,) = tokenize(example.question, example.context, max_seq_len=128, doc_stride=64)
        types = [0] * window.context.start + [1] * (len(window) - window.context.start)
        with torch.no_grad():
            logits = bert(torch.tensor([window.encoding.ids]), token_type_ids=torch.tensor([types]))
        chosen = [0, *range(window.context.start, window.context.stop)]  # [CLS] is in the softmax
        start, end = (x[0, chosen].double().softmax(0)[1:] for x in (logits.start_logits, logits.end_logits))
        texts: dict[str, float] = {}
        spans = [(float(start[i] * end[j]), i, j) for i in range(len(start)) for j in range(i, min(i + 30, len(end)))]
        for probability, i, j in sorted(spans, reverse=True)[:10]:
            first, last = window.context.start + i, window.context.start + j
            text = example.context[window.encoding.offsets[first][0] : window.encoding.offsets[last][1]]
            texts[text] = texts.get(text, 0) + probability
        expected = sum(p * f1(prediction, [text]) for text, p in texts.items()) / sum(texts.values())
        assert score == pytest.approx(expected, abs=0.01)


def test_full_agrees_best_with_itself(model: LengthAdaptiveModel) -> None:
    made = gold_answers(model, UNANSWERED)
    full = made.evaluate(model, FULL, batch_size=4)
    dropping = made.evaluate(model, LengthConfig((0.5, 0.3, 0.1)), batch_size=4)
    assert full.predictions == tuple(labels[0][0] for labels in made.soft_labels)
    assert np.mean(full.question_exact_match) > np.mean(dropping.question_exact_match)
    assert 0 < full.f1 <= 100
