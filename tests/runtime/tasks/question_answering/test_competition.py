"""Windows of a long context that compete: which run, and what is answered."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_tinybert.runtime import QuestionAnswerer
from dynamic_tinybert.runtime.tasks.question_answering import competition
from dynamic_tinybert.runtime.tasks.question_answering.answers import log_probabilities
from dynamic_tinybert.runtime.tasks.question_answering.competition import MOST, PRIOR, ROUND, priors, run_competing
from dynamic_tinybert.runtime.tasks.question_answering.inference import WindowOutput, run_windows
from dynamic_tinybert.runtime.tasks.question_answering.matching import matches
from dynamic_tinybert.runtime.tasks.question_answering.plan import AnswerPlan
from dynamic_tinybert.runtime.tasks.question_answering.task import QuestionAnsweringOutput
from dynamic_tinybert.runtime.tasks.windows import Window
from dynamic_tinybert.serving import AsyncQuestionAnswerer

from support.tiny import letter_tokenizer, tiny_bundle

QUESTIONS = ["where b?", "who is 2?", "a c d"]
CONTEXT = "".join(np.random.default_rng(0).choice([*"abcdefghijkl123 .,"], 900))
SIZES: Mapping[str, Any] = {"max_seq_len": 60, "doc_stride": 10}
OPTIONS: Sequence[Mapping[str, Any]] = (
    {},
    {"top_k": 5},
    {"handle_impossible_answer": True, "top_k": 2},
    {"merge": "text", "top_k": 3},
    {"align_to_words": False, "max_answer_len": 3},
)


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> QuestionAnswerer:
    folder = tmp_path_factory.mktemp("bundle")
    letter_tokenizer(folder)
    return QuestionAnswerer.from_pretrained(tiny_bundle(folder), num_threads=1)


class Scripted:
    """A model whose best span in each window has the advantage that the window's place in the context decides."""

    def __init__(self, plan: AnswerPlan, by_window: Mapping[int, float], cls: float = 0.0) -> None:
        self.advantages = {tuple(window.input_ids): by_window.get(i, 0.0) for i, window in enumerate(plan.windows[0])}
        self.cls = cls
        self.batches: list[int] = []

    def __call__(self, input_ids: Any, attention_mask: Any, **_: object) -> QuestionAnsweringOutput:  # noqa: ANN401
        self.batches.append(len(input_ids))
        logits = np.full(input_ids.shape, self.cls - 50, np.float32)
        logits[:, 0] = self.cls
        for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            length = int(mask.sum())
            logits[row, length - 2] = self.cls + self.advantages[tuple(ids[:length].tolist())] / 2
        return QuestionAnsweringOutput(logits, logits, {})


def ran(outputs: Sequence[WindowOutput | None]) -> list[int]:
    return [i for i, output in enumerate(outputs) if output is not None]


def in_order(windows: Sequence[Window]) -> list[int]:
    return [int(index) for index in np.argsort(-matches(windows), kind="stable")]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_if_nobody_is_sure_answers_are_those_of_all_windows(
    answerer: QuestionAnswerer, options: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(competition, "MOST", 1e6)
    plan = answerer.plan(QUESTIONS, CONTEXT, compete=True, **SIZES, **options)
    assert len(plan.windows[0]) > 2 * ROUND
    every = run_windows(answerer.model, plan.windows, length_config=None, batch_size=8)
    for size in (1, 3, 8):
        found = answerer.answer_batch(QUESTIONS, CONTEXT, compete=True, batch_size=size, **SIZES, **options)
        for own, expected in zip(found, plan.answers(every), strict=True):
            assert [{**answer, "score": 0} for answer in own] == [{**answer, "score": 0} for answer in expected]
            np.testing.assert_allclose([a["score"] for a in own], [a["score"] for a in expected], rtol=1e-3)


def test_windows_run_in_rounds_until_the_next_one_can_not_win(answerer: QuestionAnswerer) -> None:
    plan = answerer.plan("a c d", CONTEXT, compete=True, **SIZES)
    (windows,) = plan.windows
    order = in_order(windows)
    model = Scripted(plan, {order[1]: MOST + 1.0, order[-1]: 100.0})
    (outputs,) = run_competing(model, [windows], plan.options, length_config=None)
    best = MOST + 1.0 + priors(windows)[order[1]]
    least = next(k for k in range(ROUND, len(order), ROUND) if best >= MOST + priors(windows)[order[k]])
    assert ran(outputs) == sorted(order[:least])
    assert len(order) > least
    assert max(model.batches) == ROUND
    ((answer,),) = plan.answers([outputs])
    assert answer["end"] == windows[order[1]].encoding.offsets[windows[order[1]].context.stop - 1][1]


def test_without_a_sure_answer_all_windows_run(answerer: QuestionAnswerer) -> None:
    plan = answerer.plan("a c d", CONTEXT, compete=True, handle_impossible_answer=True, **SIZES)
    model = Scripted(plan, {0: -1.0})
    (outputs,) = run_competing(model, plan.windows, plan.options, length_config=None)
    assert len(ran(outputs)) == len(plan.windows[0])


def test_several_answers_are_wanted_of_several_places(answerer: QuestionAnswerer) -> None:
    """One sure answer ends the contest for one, not for two."""
    counts = {}
    for top_k in (1, 2):
        plan = answerer.plan("a c d", CONTEXT, compete=True, top_k=top_k, **SIZES)
        model = Scripted(plan, {in_order(plan.windows[0])[0]: MOST + PRIOR})
        (outputs,) = run_competing(model, plan.windows, plan.options, length_config=None)
        counts[top_k] = len(ran(outputs))
    assert counts == {1: ROUND, 2: len(plan.windows[0])}


def test_questions_do_not_depend_on_others(answerer: QuestionAnswerer) -> None:
    plan = answerer.plan(QUESTIONS, CONTEXT, compete=True, **SIZES)
    together = run_competing(answerer.model, plan.windows, plan.options, length_config="full")
    for windows, outputs in zip(plan.windows, together, strict=True):
        (alone,) = run_competing(answerer.model, [windows], plan.options, length_config="full")
        assert ran(alone) == ran(outputs)
        for one, other in zip(alone, outputs, strict=True):
            if one is not None and other is not None:
                np.testing.assert_allclose(one.start_logits[:60], other.start_logits[:60], atol=1e-5)


def test_windows_do_not_compete_unless_asked(answerer: QuestionAnswerer, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = answerer.answer_batch(QUESTIONS, CONTEXT, **SIZES)
    monkeypatch.setattr(competition, "MOST", -1e6)
    assert answerer.answer_batch(QUESTIONS, CONTEXT, **SIZES) == expected
    assert answerer.answer_batch(QUESTIONS, CONTEXT, compete=False, **SIZES) == expected


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_one_window_is_answered_as_by_the_pipeline(answerer: QuestionAnswerer, options: Mapping[str, Any]) -> None:
    for question in ("a c d", "zzz"):
        (alone,), (competing,) = (
            answerer.answer_batch(question, CONTEXT[:40], compete=compete, **options) for compete in (False, True)
        )
        assert [{**answer, "score": 0} for answer in competing] == [{**answer, "score": 0} for answer in alone]
        np.testing.assert_allclose([a["score"] for a in competing], [a["score"] for a in alone], rtol=1e-9)


def test_probabilities_are_over_the_whole_context(answerer: QuestionAnswerer) -> None:
    (windows,) = answerer.plan("a c d", CONTEXT, **SIZES).windows
    (outputs,) = run_windows(answerer.model, [windows], length_config=None, batch_size=8)
    for side in range(2):
        logs = [pair[side] for pair in log_probabilities(windows, outputs, priors(windows).tolist())]
        assert len({float(own[0]) for own in logs}) == 1  # one [CLS] for all
        assert math.isclose(math.exp(logs[0][0]) + sum(float(np.exp(own[1:]).sum()) for own in logs), 1, rel_tol=1e-9)


def test_a_guess_loses_to_an_answer_that_leaves_nothing_to_cls(answerer: QuestionAnswerer) -> None:
    """By the pipeline's rule both windows are sure, and the first one would win by its larger share."""
    plan = answerer.plan("zzz", CONTEXT, compete=True, **SIZES)  # no window matches
    (windows,) = plan.windows

    def output(cls: float, best: float, other: float, length: int) -> WindowOutput:
        logits = np.full(length, -50, np.float32)
        logits[0], logits[length - 2], logits[length - 5] = cls, best, other
        return WindowOutput(logits, logits, {})

    guess, answer = output(4.0, 9.0, -50, len(windows[0])), output(-9.0, 4.0, 1.0, len(windows[1]))
    pair = replace(plan, windows=[windows[:2]])
    ((found,),) = pair.answers([[guess, answer]])
    assert found["end"] == windows[1].encoding.offsets[windows[1].context.stop - 1][1]
    of_pipeline = replace(pair, options=replace(plan.options, compete=False))
    assert of_pipeline.answers([[guess, answer]])[0][0]["end"] == windows[0].encoding.offsets[len(windows[0]) - 2][1]


def test_no_answer_by_a_threshold(answerer: QuestionAnswerer) -> None:
    plan = answerer.plan("a c d", CONTEXT, compete=True, handle_impossible_answer=True, **SIZES)
    (windows,) = plan.windows
    model = Scripted(plan, dict.fromkeys(range(len(windows)), 3.0))
    (outputs,) = run_competing(model, [windows], plan.options, length_config=None)
    for threshold, empty in ((-3.1, True), (-2.9, False)):  # the best window has no prior, so the score is -3
        ((answer,),) = replace(plan, no_answer_threshold=threshold).answers([outputs])
        assert (answer["answer"] == "") == empty


def test_asynchronous_answers_are_those_of_all_windows(answerer: QuestionAnswerer) -> None:
    async def ask() -> object:
        async with AsyncQuestionAnswerer(answerer) as service:
            return await service("a c d", CONTEXT, compete=True, **SIZES)

    plan = answerer.plan("a c d", CONTEXT, compete=True, **SIZES)
    every = run_windows(answerer.model, plan.windows, length_config=None, batch_size=8)
    assert asyncio.run(ask()) == plan.answers(every)[0][0]


class Tokens:
    """A window of these tokens."""

    def __init__(self, question: Sequence[int], context: Sequence[int]) -> None:
        self.input_ids = [2, *question, 3, *context, 3]
        self.context = slice(len(question) + 2, len(question) + 2 + len(context))


def matches_of(question: Sequence[int], contexts: Sequence[Sequence[int]]) -> list[float]:
    windows: list[Any] = [Tokens(question, own) for own in contexts]
    return [float(match) for match in matches(windows)]


def test_rare_tokens_of_the_question_count_more() -> None:
    found = matches_of([7, 8, 9], [[1, 1, 7], [7, 8, 1], [1, 1, 1], [7, 9, 8]])
    assert found[3] == 1
    assert found[3] > found[1] > found[0] > found[2] == 0
    assert matches_of([7], [[1, 1], [1, 2]]) == [0, 0]
    assert matches_of([7], [[7, 1]]) == [1]


_TOKENS = st.lists(st.integers(4, 9), min_size=1, max_size=6)


@settings(max_examples=50, deadline=None)
@given(_TOKENS, st.lists(_TOKENS, min_size=1, max_size=6), st.randoms())
def test_matches_belong_to_windows(question: list[int], contexts: list[list[int]], random: Any) -> None:  # noqa: ANN401
    """They do not depend on the windows' order, lie in [0, 1], and are 0 just without a token of the question."""
    found = matches_of(question, contexts)
    order = random.sample(range(len(contexts)), len(contexts))
    np.testing.assert_allclose(matches_of(question, [contexts[i] for i in order]), [found[i] for i in order])
    for context, match in zip(contexts, found, strict=True):
        assert 0 <= match <= 1
        assert (match > 0) == bool(set(question) & set(context))
