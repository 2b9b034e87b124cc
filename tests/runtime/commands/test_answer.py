"""The command `answer`: real processes, killed and resumed, and what it says."""

import csv
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dynamic_tinybert.runtime import QuestionAnswerer

from support.tiny import tiny_bundle

CONTEXT = "the fox was in the box and the cat was in the hat"
PROGRAM = (
    "import sys; sys.modules.update(dict.fromkeys({blocked!r})); "
    "from dynamic_tinybert.runtime.tasks.question_answering import bulk, bulk_file; "
    "bulk.BLOCK_ROWS = bulk_file.BLOCK_ROWS = 8; "
    "from dynamic_tinybert.runtime.cli import main; sys.exit(main())"
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows: list[Any] = [
        {"id": i, "question": f"what was in {word}?", "context": CONTEXT * (1 + i % 20)}
        for i, word in enumerate(["the box", "the hat", "it"] * 200)
    ]
    rows[100] = {"id": 100, "question": 3}
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def command(*arguments: object, blocked: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(blocked=blocked), "answer", *map(str, arguments)]


def run(*arguments: object, blocked: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments, blocked=blocked), capture_output=True, text=True, check=False)


def refused(*arguments: object, blocked: tuple[str, ...] = ()) -> str:
    """The one line that the command prints when it refuses to run."""
    done = run(*arguments, blocked=blocked)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("dynamic-tinybert: ")
    return line


def finished_blocks(output: Path) -> int:
    """Lines of the journal."""
    journal = output.with_name(f"{output.name}.answering") / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@pytest.mark.slow
def test_killed_five_times_and_resumed_the_output_is_the_same(bundle: Path, questions: Path, tmp_path: Path) -> None:
    expected, output = tmp_path / "expected.csv", tmp_path / "output.csv"
    done = run(questions, expected, "--bundle", bundle)
    assert done.returncode == 0, done.stderr
    chance = random.Random(0)
    blocks = 0
    for _ in range(5):
        process = subprocess.Popen(
            command(questions, output, "--bundle", bundle, "--resume"), stderr=subprocess.DEVNULL
        )
        while process.poll() is None and finished_blocks(output) <= blocks:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        assert not output.exists()
        process.kill()
        assert process.wait() == -9
        blocks = finished_blocks(output)
    assert 5 <= blocks < 75
    assert "continue it with --resume" in refused(questions, output, "--bundle", bundle)
    done = run(questions, output, "--bundle", bundle, "--resume")
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == expected.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected.csv", "output.csv", "questions.jsonl"]


def test_rows_and_errors_are_reported(bundle: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.jsonl"
    with source.open("w", newline="") as stream:
        csv.writer(stream).writerows([["key", "q", "c"], ["a", "what?", CONTEXT], ["b", "", CONTEXT], ["c"]])
    names = ("--question-column", "q", "--context-column", "c", "--id-column", "key", "--prefix", "my_")
    done = run(source, output, "--bundle", bundle, *names, "--max-answer-len", 2, "--top-k", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output}: 3 rows, length configuration full\n"
    assert "in.csv, row 2 (line 3), key 'b': question is empty: '' holds no token\n" in done.stderr
    assert "in.csv, row 3 (line 4), key 'c': 1 fields, but the header names 3 columns\n" in done.stderr
    assert "2 of 3 rows could not be answered; the column my_error says why\n" in done.stderr
    assert "3/3 [" in done.stderr  # progress
    first, second, third = map(json.loads, output.read_text().splitlines())
    (answers,) = QuestionAnswerer.from_pretrained(bundle).answer_batch("what?", CONTEXT, max_answer_len=2, top_k=2)
    assert first["my_answers"] == answers
    assert {f"my_{name}": value for name, value in answers[0].items()}.items() <= first.items()
    assert list(first)[:3] == ["key", "q", "c"]
    assert second["my_error"] == "question is empty: '' holds no token"
    assert third == {"key": "c", **{f"my_{name}": None for name in ("answer", "score", "start", "end", "answers")},
                     "my_error": "1 fields, but the header names 3 columns"}  # fmt: skip


def test_refusals_are_one_line(bundle: Path, questions: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    line = refused(questions, output, "--strict", "--bundle", bundle)
    assert line.endswith("questions.jsonl, row 101 (line 101): its 'question' must be text, not 3; --strict refuses it")
    assert "has no column 'q'" in refused(questions, output, "--question-column", "q", "--bundle", bundle)
    assert "is the input itself" in refused(questions, questions, "--force")
    assert "must end with .jsonl, .csv or .parquet" in refused(questions, tmp_path / "out.txt")
    assert "No such file" in refused(tmp_path / "none.csv", output)
    output.touch()
    assert "replace it with --force" in refused(questions, output)
    (tmp_path / "folder.csv").mkdir()
    assert "it is not a file" in refused(tmp_path / "folder.csv", tmp_path / "out.csv", "--bundle", bundle)


def test_parquet_names_the_extra_that_is_missing(bundle: Path, questions: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    source.touch()
    for given, output in ((source, tmp_path / "out.csv"), (questions, tmp_path / "out.parquet")):
        line = refused(given, output, "--bundle", bundle, blocked=("pyarrow",))
        assert line.endswith(
            "Parquet files need pyarrow, which is not installed; run: pip install 'dynamic-tinybert[parquet]'"
        )
    assert not (tmp_path / "out.parquet.answering").exists()
