import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from contract import CASES, CONTRACT, check_contract
from torch_model import TorchModel, letter_tokenizer, load_bert

from dynamic_tinybert.runtime.errors import InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.question_answering import QuestionAnswerer

from tiny import tiny_bert, write_tiny_bundle

CONTEXTS = ["Ada was born in London. " * k + "She met Charles in 1833!" for k in (0, 1, 4, 9, 2, 12)]
QUESTIONS = ["who?", "when was it?", "where?", "who met whom?", "a", "which year?"]


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> QuestionAnswerer:
    file = letter_tokenizer(tmp_path_factory.mktemp("letters"))
    return QuestionAnswerer(TorchModel(tiny_bert(), file).as_model())


def test_there_are_cases_enough() -> None:
    assert len(CASES) >= 200
    assert CONTRACT["transformers"] == "5.2.0"


def test_contract_of_the_transformers_pipeline(fp32_bundle: Path) -> None:
    check_contract(QuestionAnswerer.from_pretrained(fp32_bundle))


def test_contract_check_notices_a_wrong_answer(checkpoint: Path) -> None:
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
    bundle = write_tiny_bundle(tmp_path, tiny_bert(), {"half": LengthConfig((1, 0.5, 0.3))})
    answerer = QuestionAnswerer.from_pretrained(bundle, num_streams=2)
    model = answerer.model
    assert all(model._graph(model.resolve(name))._current()._idle.qsize() == 2 for name in model.length_configs)
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


def test_no_spans_outside_the_context(answerer: QuestionAnswerer) -> None:
    answer = answerer("who?", "abc", top_k=10, align_to_words=False)
    assert isinstance(answer, list)
    assert sorted((a["start"], a["end"]) for a in answer) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("question", "context", "options", "message"),
    [
        ("", "abc", {}, "question is empty"),
        (["who?", "who?"], ["abc", "  "], {}, "context is empty"),
        ("who?", None, {}, "context must be a string, not NoneType"),
        (["who?", 3], "abc", {}, "question must be a string, not int"),
        (["who?"], ["abc", "def"], {}, "1 questions but 2 contexts"),
        ("who?", ["abc"], {}, "one question with a list of contexts"),
        ("who? " * 50, "abc", {}, "question is too long"),
        ("who?", "abc", {"top_k": 0}, "top_k must be an int of at least 1, not 0"),
        ("who?", "abc", {"max_answer_len": 0}, "max_answer_len must be an int of at least 1, not 0"),
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
