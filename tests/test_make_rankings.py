"""The rankings that the benchmark makes from questions: BM25's best paragraphs, the right one always among them."""

import json
import sys
from pathlib import Path

import pytest

from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import read_rankings

ROOT = Path(__file__).parents[1]
PARAGRAPHS = {
    "cats": "The cat sleeps under the roof and hunts mice at night.",
    "boats": "A boat crosses the river every morning with bread and milk.",
    "towers": "The tower was built of stone and has a bell of bronze.",
    "mills": "Grain is ground in the mill beside the river.",
}
QUESTIONS = {"What does the cat hunt?": "cats", "Which boat has bread?": "boats", "Bell bronze tower stone?": "mills"}


def test_each_question_has_the_best_paragraphs_and_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bm25s", reason="the extra `benchmarks` brings it")
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.ranking.make_rankings import main

    questions = [
        {"question": question, "context": PARAGRAPHS[name], "title": name, "answers": [{"text": "x"}]}
        for question, name in QUESTIONS.items()
    ]
    others = [{"question": "?", "context": text, "answers": [{"text": "x"}]} for text in PARAGRAPHS.values()]
    nothing = {"question": "why?", "context": "Nothing.", "answers": {"text": [], "answer_start": []}}
    file = tmp_path / "squad.json"
    file.write_text(json.dumps([*questions, *others, nothing]))
    monkeypatch.setattr(sys, "argv", ["make_rankings", str(file), str(tmp_path / "r.jsonl"), "--documents", "2"])
    main()
    rankings = read_rankings(tmp_path / "r.jsonl")
    assert len(rankings) == 7
    for ranking, name in zip(rankings, QUESTIONS.values(), strict=False):
        assert ranking.group == name
        assert len(set(ranking.documents)) == 2
        assert [text for text, grade in zip(ranking.documents, ranking.grades, strict=True) if grade] == [
            PARAGRAPHS[name]
        ]
    assert [ranking.documents[0] for ranking in rankings[:3]] == [PARAGRAPHS[k] for k in ("cats", "boats", "towers")]
    assert rankings[2].documents[1] == PARAGRAPHS["mills"]  # missed, so in the place of the last
    shown = capsys.readouterr().out
    assert "7 questions, 2 documents each, of 4 paragraphs of squad.json" in shown
    assert "nDCG@10" in shown
