"""The groups that the benchmark makes to train rerankers on: negatives are hard, and never hold the answer."""

import json
import sys
from pathlib import Path

import pytest

from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import read_rankings

ROOT = Path(__file__).parents[1]
RIVER = [
    "A boat crosses the river with Bread and milk.",
    "The river is cold, and bread is sold on its bank.",
    "The river has a boat of stone.",
    "The river has a mill beside the boat.",
    "Boats wait at the river.",
]
CAT = "The cat sleeps."


def test_negatives_are_found_by_the_question_and_do_not_hold_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bm25s", reason="the extra `benchmarks` brings it")
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.ranking.make_groups import main

    asked = {
        "question": "What does the boat bring over the river?",
        "context": RIVER[0],
        "answers": [{"text": "bread"}],
    }
    others = [{"question": "?", "context": text, "answers": [{"text": "e"}]} for text in (*RIVER[1:], CAT)]
    nothing = {"question": "why?", "context": "Nothing.", "answers": {"text": [], "answer_start": []}}
    file, output = tmp_path / "squad.json", tmp_path / "groups.jsonl"
    file.write_text(json.dumps([asked, *others, nothing]))
    arguments = ["make_groups", str(file), str(output), "--negatives", "2", "--among", "5"]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    (group,) = read_rankings(output)  # all paragraphs hold an e, so that the others have no negatives
    assert group.documents[0] == RIVER[0]
    assert group.grades == (1, 0, 0)
    assert len(set(group.documents)) == 3
    assert set(group.documents[1:]) <= set(RIVER[2:])
    assert "1 of 6 questions, each with 2 of the 5 paragraphs" in capsys.readouterr().out
    first = output.read_bytes()
    main()
    assert output.read_bytes() == first

    monkeypatch.setattr(sys, "argv", [*arguments, "--negatives", "5"])
    with pytest.raises(DataError, match="no question has 5 paragraphs without its answer"):
        main()
