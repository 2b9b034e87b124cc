import inspect
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.answerer import QuestionAnswerer
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing

from support.contract import CASES, CONTRACT, check_contract
from support.tiny import letter_tokenizer, tiny_bert, tiny_bundle
from support.torch_model import TorchModel, load_bert

CONTEXTS = ["Ada was born in London. " * k + "She met Charles in 1833!" for k in (0, 1, 4, 9, 2, 12)]
QUESTIONS = ["who?", "when was it?", "where?", "who met whom?", "a", "which year?"]


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> QuestionAnswerer:
    folder = tmp_path_factory.mktemp("bundle")
    letter_tokenizer(folder)
    return QuestionAnswerer.from_pretrained(tiny_bundle(folder))


def test_there_are_cases_enough() -> None:
    assert len(CASES) >= 200
    assert CONTRACT["transformers"] == "5.2.0"


@pytest.fixture(scope="module")
def real_answerer(fp32_bundle: Path) -> QuestionAnswerer:
    return QuestionAnswerer.from_pretrained(fp32_bundle)


def test_contract_of_the_transformers_pipeline(real_answerer: QuestionAnswerer) -> None:
    check_contract(real_answerer, merge="text")


def test_contract_by_default_where_no_answer_stands_twice(real_answerer: QuestionAnswerer) -> None:
    alike = [case for case in CASES if stands_once(real_answerer, case)]
    assert len(alike) >= 100
    check_contract(real_answerer, alike)


def stands_once(answerer: QuestionAnswerer, case: dict[str, Any]) -> bool:
    """Whether each answer of a case is at one place of one window, so that nothing is added up."""
    if isinstance(case["question"], list):
        return False
    context, options = CONTRACT["contexts"][case["context"]], case["options"]
    windowing = Windowing.of(answerer.model, options.get("max_seq_len"), options.get("doc_stride"))
    windows = windowing.cut(case["question"], context)
    expected = case["expected"] if isinstance(case["expected"], list) else [case["expected"]]
    texts = [answer["answer"].lower() for answer in expected if answer["answer"]]
    return len(windows) == 1 and all(context.lower().count(text) == 1 for text in texts)


def test_contract_check_notices_a_wrong_answer(checkpoint: Path) -> None:
    torch = pytest.importorskip("torch", reason="the model's weights are changed by PyTorch")
    bert = load_bert(checkpoint)
    torch.nn.init.normal_(bert.qa_outputs.weight, generator=torch.Generator().manual_seed(0))
    answerer = QuestionAnswerer(TorchModel(bert, checkpoint / "tokenizer.json").as_model())
    with pytest.raises(AssertionError):
        check_contract(answerer, CASES[:1])


def test_many_questions_get_the_answers_of_one(answerer: QuestionAnswerer) -> None:
    many = answerer(QUESTIONS, CONTEXTS, top_k=3, max_seq_len=60)
    assert len(many) == len(QUESTIONS)
    for question, context, answers in zip(QUESTIONS, CONTEXTS, many, strict=True):
        alone = answerer(question, context, top_k=3, max_seq_len=60)
        assert isinstance(answers, list)
        assert isinstance(alone, list)
        for a, b in zip(answers, alone, strict=True):
            assert a == {**b, "score": pytest.approx(b["score"], abs=1e-5)}


def test_threads_share_an_answerer(answerer: QuestionAnswerer) -> None:
    calls = [(q, c, n) for q in QUESTIONS for c in CONTEXTS for n in (30, 60)]

    def ask(call: tuple[str, str, int]) -> object:
        question, context, max_seq_len = call
        return answerer(question, context, max_seq_len=max_seq_len, doc_stride=5, top_k=2)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, calls)) == [ask(call) for call in calls]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="OpenVINO runs no two requests at once on one core")
def test_threads_share_a_model_that_runs_two_requests_at_once(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, {"half": LengthConfig((1, 0.5, 0.3))})
    answerer = QuestionAnswerer.from_pretrained(bundle, num_streams=2)
    model = answerer.model
    for name in model.length_configs:
        assert len(model._graph(model.resolve(name))._current()._requests._idle) == 2
    calls = [(q, c, name) for q in QUESTIONS for c in CONTEXTS for name in model.length_configs]

    def ask(call: tuple[str, str, str]) -> object:
        question, context, length_config = call
        return answerer(question, context, length_config=length_config, max_seq_len=100, top_k=2)

    alone = [ask(call) for call in calls]
    assert alone[::2] != alone[1::2]  # the configurations do differ
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, calls)) == alone


def test_shapes_of_results(answerer: QuestionAnswerer) -> None:
    context = CONTEXTS[0]
    one = answerer("who?", context)
    assert set(one) == {"score", "start", "end", "answer"}
    assert one["answer"] == context[one["start"] : one["end"]]
    assert answerer(question=["who?"], context=[context]) == one
    assert isinstance(answerer("who?", context, top_k=2), list)
    assert [type(a) for a in answerer(["who?", "when?"], context)] == [dict, dict]
    assert [type(a) for a in answerer(["who?", "when?"], context, top_k=2)] == [list, list]
    assert answerer([], []) == []


PAIRS = [{"question": q, "context": c} for q, c in zip(QUESTIONS, CONTEXTS, strict=True)]


class Squad:
    """As transformers' SquadExample."""

    def __init__(self, question: str, context: str) -> None:
        self.question_text, self.context_text = question, context


@pytest.mark.parametrize(
    "several",
    [tuple, np.array, lambda texts: np.array(texts, object), iter, lambda texts: (text for text in texts)],
    ids=["tuple", "array", "array of objects", "iterator", "generator"],
)
def test_texts_come_in_any_sequence(answerer: QuestionAnswerer, several: Callable[[list[str]], Iterable[str]]) -> None:
    expected = answerer(QUESTIONS, CONTEXTS)
    assert answerer(several(QUESTIONS), several(CONTEXTS)) == expected
    assert answerer(several(QUESTIONS), "Ada!") == answerer(QUESTIONS, "Ada!")


def test_pairs_come_as_mappings(answerer: QuestionAnswerer) -> None:
    expected = answerer(QUESTIONS, CONTEXTS)
    rows = [{**pair, "id": str(k)} for k, pair in enumerate(PAIRS)]
    for pairs in (PAIRS, tuple(PAIRS), iter(PAIRS), rows, [Squad(**pair) for pair in PAIRS]):
        assert answerer(pairs) == expected
    assert answerer(data=PAIRS) == answerer(X=PAIRS) == answerer(question=PAIRS) == expected
    one = answerer(QUESTIONS[0], CONTEXTS[0])
    assert answerer(PAIRS[0]) == answerer(data=PAIRS[0]) == answerer([PAIRS[0]]) == one
    assert answerer(PAIRS[0], PAIRS[1]) == answerer(PAIRS[:2])
    assert answerer(data=[]) == []


@pytest.mark.parametrize("top_k", [None, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 6])
def test_a_batch_has_one_shape(answerer: QuestionAnswerer, count: int, top_k: int | None) -> None:
    questions, contexts = QUESTIONS[:count], CONTEXTS[:count]
    answers = answerer.answer_batch(questions, contexts, top_k=top_k, max_seq_len=60)
    assert [len(own) for own in answers] == [top_k or 1] * count
    assert all(set(answer) == {"score", "start", "end", "answer"} for own in answers for answer in own)
    assert answerer.answer_batch(PAIRS[:count], top_k=top_k, max_seq_len=60) == answers
    called = answerer(questions, contexts, top_k=top_k, max_seq_len=60)
    assert called == (
        [own[0] if len(own) == 1 else own for own in answers] if count != 1 else (answers[0][0], answers[0])[top_k == 3]
    )


def test_a_batch_of_one_question_may_be_given_as_it_is(answerer: QuestionAnswerer) -> None:
    expected = [[answerer("who?", CONTEXTS[0])]]
    assert answerer.answer_batch("who?", CONTEXTS[0]) == answerer.answer_batch(["who?"], CONTEXTS[0]) == expected
    assert answerer.answer_batch({"question": "who?", "context": CONTEXTS[0]}) == expected
    with pytest.raises(TypeError, match="no_such_option"):
        answerer.answer_batch("who?", CONTEXTS[0], no_such_option=None)  # type: ignore[call-arg]
    with pytest.raises(InvalidInputError, match="item 1 of 2, counted from 0: context is empty"):
        answerer.answer_batch(["who?", "who?"], ["abc", "  "])


def test_a_batch_takes_the_options_of_a_call(answerer: QuestionAnswerer) -> None:
    batch, call = (inspect.signature(f).parameters for f in (QuestionAnswerer.answer_batch, QuestionAnswerer.__call__))
    only_pipelines = {"question", "context", "data", "X", "topk", "max_question_len", "padding", "num_workers"}
    assert call.keys() - batch.keys() == only_pipelines | {"framework"}
    options: dict[str, Any] = {"max_answer_len": 2, "align_to_words": False, "merge": "text", "top_k": 4}
    (answers,) = answerer.answer_batch("who?", CONTEXTS[5], **options, handle_impossible_answer=True)
    assert answers == answerer("who?", CONTEXTS[5], **options, handle_impossible_answer=True)
    assert answers != answerer.answer_batch("who?", CONTEXTS[5], top_k=4)[0]


def test_options_of_the_pipeline_are_taken(answerer: QuestionAnswerer) -> None:
    ignored = {"padding": "max_length", "num_workers": 4, "framework": "pt", "max_question_len": 64}
    assert answerer(QUESTIONS, CONTEXTS, **ignored) == answerer(QUESTIONS, CONTEXTS)  # type: ignore[call-overload]
    three = answerer(QUESTIONS, CONTEXTS, top_k=3)
    assert answerer(QUESTIONS, CONTEXTS, topk=3) == answerer(QUESTIONS, CONTEXTS, topk=1, top_k=3) == three
    with pytest.raises(TypeError, match="no_such_option"):
        answerer(QUESTIONS, CONTEXTS, no_such_option=1)  # type: ignore[call-overload]


def test_none_is_the_default_of_every_option(answerer: QuestionAnswerer) -> None:
    options = [name for name, p in inspect.signature(type(answerer).__call__).parameters.items() if p.kind.value == 3]
    assert len(options) > 10
    nothing = dict.fromkeys(options)
    assert answerer("who?", CONTEXTS[5], **nothing) == answerer("who?", CONTEXTS[5])


def test_counts_may_be_numpy_integers(answerer: QuestionAnswerer) -> None:
    counts = {"top_k": 60, "max_answer_len": 4, "max_seq_len": 100, "doc_stride": 20, "batch_size": 3}
    of_numpy = {name: np.int8(count) for name, count in counts.items()}  # 2 * 60 + 10 would overflow
    assert answerer("who?", CONTEXTS[5], **of_numpy) == answerer("who?", CONTEXTS[5], **counts)  # type: ignore[call-overload]


@pytest.mark.parametrize(("batch_size", "most"), [(None, 8), (1, 1), (3, 3)])
def test_windows_run_as_many_at_once_as_asked_for(
    answerer: QuestionAnswerer, batch_size: int | None, most: int
) -> None:
    model = TorchModel(tiny_bert(), answerer.model.tokenizer_file)  # which records its inputs
    options = {"max_seq_len": 30, "doc_stride": 5, "batch_size": batch_size}
    QuestionAnswerer(model.as_model())("who?", CONTEXTS[5] * 4, **options)
    assert max(len(batch["input_ids"]) for batch in model.inputs) == most


def test_merging_is_by_place_unless_by_text_is_asked_for(answerer: QuestionAnswerer) -> None:
    by_place, by_text = (
        answerer("who?", "ada ada ada", top_k=100, align_to_words=False, merge=merge) for merge in (None, "text")
    )
    assert isinstance(by_place, list)
    assert isinstance(by_text, list)
    assert len({(a["start"], a["end"]) for a in by_place}) == len(by_place) > len(by_text)
    assert len({a["answer"] for a in by_text}) == len(by_text)
    sums = {a["answer"]: a["score"] for a in by_text}
    for text, total in sums.items():
        assert total == pytest.approx(sum(a["score"] for a in by_place if a["answer"] == text))


def test_no_spans_outside_the_context(answerer: QuestionAnswerer) -> None:
    answer = answerer("who?", "abc", top_k=10, align_to_words=False)
    assert isinstance(answer, list)
    assert sorted((a["start"], a["end"]) for a in answer) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("question", "context", "options", "message"),
    [
        ("", "abc", {}, "question is empty"),
        (["who?", "who?"], ["abc", "  "], {}, "item 1 of 2, counted from 0: context is empty"),
        ([{"question": "", "context": "abc"}, {"question": "who?", "context": "abc"}], None, {}, "item 0 of 2.* empty"),
        (["who?", "who? " * 50], "abc", {}, "item 1 of 2, counted from 0: the question is too long"),
        ("who?", None, {}, "give a question and a context"),
        (None, "abc", {}, "give a question and a context"),
        (None, None, {}, "give a question and a context"),
        (["who?"], None, {}, "each item must be a mapping with 'question' and 'context', not str"),
        ({"question": "who?"}, None, {}, r"each item must be a mapping .* not the keys \['question'\]"),
        ({"question": "who?", "context": None}, None, {}, "context must be a string, not NoneType"),
        ({"question": "who?", "context": "abc"}, "abc", {}, "each item must be a mapping .* not str"),
        ("who?", 3, {}, "context must be a string, not int"),
        (np.array("who?"), "abc", {}, "question is neither a text nor a list of texts"),
        ({"who?"}, "abc", {}, "question is a set, whose items have no order"),
        ("who?", "abc", {"data": []}, "questions are given twice"),
        (["who?", 3], "abc", {}, "question must be a string, not int"),
        (["who?"], ["abc", "def"], {}, "1 questions but 2 contexts"),
        ("who?", ["abc"], {}, "one question with a list of contexts"),
        ("who? " * 50, "abc", {}, "question is too long"),
        ("who?", "abc", {"top_k": 0}, "top_k must be an int of at least 1, not 0"),
        ("who?", "abc", {"max_answer_len": 0}, "max_answer_len must be an int of at least 1, not 0"),
        ("who?", "abc", {"top_k": np.True_}, "top_k must be an int of at least 1"),
        ("who?", "abc", {"batch_size": 0}, "batch_size must be an int of at least 1, not 0"),
        ("who?", "abc", {"merge": "words"}, "merge must be 'span' or 'text', not 'words'"),
        ("who?", "abc", {"max_seq_len": 20, "doc_stride": 21}, "doc_stride=21 is larger than max_seq_len=20"),
        ("who?", "abc", {"max_seq_len": 129}, "max_seq_len=129 is more than the 128"),
    ],
)
def test_bad_input(
    answerer: QuestionAnswerer, question: str, context: str, options: dict[str, int], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as error:
        answerer(question, context, **options)  # type: ignore[call-overload]
    assert isinstance(error.value, ValueError)
