"""Check an answerer against transformers' question-answering pipeline; see make_pipeline_contract.py."""

import json
from pathlib import Path
from typing import Any

from dynamic_tinybert.runtime.tasks.question_answering.answerer import QuestionAnswerer
from dynamic_tinybert.runtime.tasks.question_answering.options import Merge

CONTRACT = json.loads(Path(__file__).with_name("pipeline_contract.json").read_text(encoding="utf-8"))
CASES: list[dict[str, Any]] = CONTRACT["cases"]


def check_contract(
    answerer: QuestionAnswerer,
    cases: list[dict[str, Any]] = CASES,
    tolerance: float = 1e-4,
    merge: Merge | None = None,
) -> None:
    """Assert that `answerer` gives the pipeline's answers: equal texts and places, scores up to `tolerance`.

    Neighbouring answers whose scores in the pipeline differ by at most 1e-5 may come in either order.
    """
    for case in cases:
        names = case["context"]
        context = [CONTRACT["contexts"][n] for n in names] if isinstance(names, list) else CONTRACT["contexts"][names]
        actual = answerer(question=case["question"], context=context, merge=merge, **case["options"])
        several = isinstance(case["question"], list) and len(case["question"]) > 1
        assert isinstance(actual, list) == isinstance(case["expected"], list), case
        for got, expected in zip(actual, case["expected"], strict=True) if several else [(actual, case["expected"])]:
            assert isinstance(got, list) == isinstance(expected, list), case
            _check_answers(_as_list(got), _as_list(expected), tolerance, case)


def _as_list(answers: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
    return answers if isinstance(answers, list) else [answers]


def _check_answers(
    actual: list[dict[str, Any]], expected: list[dict[str, Any]], tolerance: float, case: dict[str, Any]
) -> None:
    assert len(actual) == len(expected), case
    for got, want in zip(actual, expected, strict=True):
        assert abs(got["score"] - want["score"]) <= tolerance, (got, want, case)
        tied = [_place(other) for other in expected if abs(other["score"] - want["score"]) <= 1e-5]
        assert _place(got) in tied, (got, want, case)
    assert len({_place(got) for got in actual}) == len(actual), case


def _place(answer: dict[str, Any]) -> tuple[int, int, str]:
    return answer["start"], answer["end"], answer["answer"]
