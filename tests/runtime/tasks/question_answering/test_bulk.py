"""Bulk answers: those of QuestionAnswerer, row by row, and the same after an interruption at any moment."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynamic_tinybert.runtime import LengthAdaptiveModel, QuestionAnswerer
from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError, LengthConfigError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tables.files import open_table
from dynamic_tinybert.runtime.tables.table import Row
from dynamic_tinybert.runtime.tasks.question_answering import bulk
from dynamic_tinybert.runtime.tasks.question_answering.bulk import AnsweredRow, BulkAnswerer, InputColumns
from dynamic_tinybert.runtime.tasks.question_answering.bulk_file import BulkFiles, BulkResult, answer_file
from dynamic_tinybert.runtime.tasks.question_answering.options import AnswerOptions

from support.tiny import tiny_bundle

WORDS = ["the", "fox", "was", "in", "the", "box", "and", "the", "cat", "was", "in", "the", "hat", "of", "what"]


class Killed(BaseException):
    """The end of the process, as far as the code that is tested can tell."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LengthAdaptiveModel:
    configs = {"half": LengthConfig((1, 0.7, 0.4))}
    return LengthAdaptiveModel.from_pretrained(tiny_bundle(tmp_path_factory.mktemp("bundle"), configs))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BLOCK_ROWS", 7)
    monkeypatch.setattr("dynamic_tinybert.runtime.tasks.question_answering.bulk_file.BLOCK_ROWS", 7)


def records(count: int) -> list[dict[str, Any]]:
    """Contexts of many lengths, some longer than a window."""
    return [
        {"id": i, "question": f"what was in {WORDS[i % 15]}?", "context": " ".join((WORDS * 20)[: 1 + 37 * i % 200])}
        for i in range(count)
    ]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def run(answerer: BulkAnswerer, source: Path, output: Path, **options: Any) -> BulkResult:  # noqa: ANN401 - those of `answer_file`
    files = BulkFiles.checked(source, output, resume=options.get("resume", False), force=options.pop("force", False))
    return answer_file(answerer, files, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 3, "max_answer_len": 2, "max_seq_len": 24, "doc_stride": 4},
        {"handle_impossible_answer": True, "max_seq_len": 40},
    ],
)
def test_answers_are_those_of_question_answerer(model: LengthAdaptiveModel, options: dict[str, Any]) -> None:
    rows = [Row(i + 1, record) for i, record in enumerate(records(40))]
    answerer = BulkAnswerer(model, None, AnswerOptions.for_model(model.max_length, **options), "half")
    one_by_one = QuestionAnswerer(model)
    for row, found in zip(rows, answerer.answer(rows), strict=True):
        question, context = row.values["question"], row.values["context"]
        (expected,) = one_by_one.answer_batch(question, context, length_config="half", **options)
        assert found.error is None
        for own, other in zip(found.answers, expected, strict=True):
            assert own["score"] == pytest.approx(other["score"], rel=1e-5)
            assert {**own, "score": 0} == {**other, "score": 0}


def test_answers_of_the_embedded_bundle_are_the_same_to_the_bit() -> None:
    qa = QuestionAnswerer.from_pretrained()
    texts = [
        f"Emma was written by {name} in {year}."
        for name in ("Jane Austen", "Ada Lovelace")
        for year in range(1815, 1835)
    ]
    rows = [Row(i + 1, {"q": "Who wrote Emma?", "c": " ".join(texts[: i + 1])}) for i in range(len(texts))]
    answered = BulkAnswerer(qa.model, InputColumns("q", "c"), length_config="fast").answer(rows)
    expected = [qa.answer_batch("Who wrote Emma?", row.values["c"], length_config="fast")[0] for row in rows]
    assert [list(row.answers) for row in answered] == expected


def test_rows_that_cannot_be_answered_do_not_disturb_the_others(model: LengthAdaptiveModel) -> None:
    good = {"question": "what?", "context": "the fox"}
    bad: list[tuple[dict[str, Any], str]] = [
        ({"context": "the fox"}, "it has no 'question'"),
        ({"question": "what?", "context": None}, "it has no 'context'"),
        ({"question": 3, "context": "the fox"}, "its 'question' must be text, not 3"),
        ({"question": "what?", "context": [1]}, "its 'context' must be text, not [1]"),
        ({"question": " ", "context": "the fox"}, "question is empty"),
        ({"question": "what?", "context": ""}, "context is empty"),
        ({"question": "what " * 200, "context": "the fox"}, "the question is too long"),
        ({"question": "\ud800", "context": "the fox"}, "not valid Unicode"),
    ]
    rows = [Row(1, good), *(Row(2, values) for values, _ in bad), Row(3, {}, "broken"), Row(4, good)]
    first, *others, broken, last = BulkAnswerer(model).answer(rows)
    assert first == last
    assert first.answers
    assert broken.error == "broken"
    for found, (_, why) in zip(others, bad, strict=True):
        assert not found.answers
        assert found.error is not None
        assert why in found.error


def test_blocks_end_by_rows_and_by_characters(model: LengthAdaptiveModel, monkeypatch: pytest.MonkeyPatch) -> None:
    answerer = BulkAnswerer(model)
    monkeypatch.setattr(bulk, "BLOCK_ROWS", 3)
    monkeypatch.setattr(bulk, "BLOCK_CHARACTERS", 10)
    lengths = [1, 1, 1, 1, 12, 5, 5, 1]
    rows = [Row(i, {"question": "", "context": "a" * length}) for i, length in enumerate(lengths)]
    assert [[row.number for row in block] for block in answerer.blocks(rows)] == [[0, 1, 2], [3, 4], [5, 6], [7]]


def test_an_unknown_length_configuration_is_refused_at_once(model: LengthAdaptiveModel) -> None:
    with pytest.raises(LengthConfigError, match="unknown length configuration 'x'"):
        BulkAnswerer(model, length_config="x")


@pytest.mark.usefixtures("small_blocks")
def test_output_has_the_rows_of_the_input_in_order(model: LengthAdaptiveModel, tmp_path: Path) -> None:
    rows: list[Any] = [*records(30), {"question": "what?"}, [1]]
    said: list[str] = []
    columns = InputColumns(id="id")
    options = AnswerOptions.for_model(model.max_length, top_k=2)
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    result = run(BulkAnswerer(model, columns, options), source, output, prefix="my_", say=said.append)
    assert result == BulkResult(32, 2)
    found: list[dict[str, Any]] = [dict(row.values) for row in open_table(output).rows()]
    assert [row.get("id") for row in found] == [*range(30), None, None]
    for row, given in zip(found, rows, strict=True):
        if given in rows[:30]:
            assert given["context"][row["my_start"] : row["my_end"]] == row["my_answer"] != ""
            assert row["my_answers"][0]["score"] == row["my_score"]
            assert row["my_error"] is None
    assert found[30]["my_error"] == "it has no 'context'"
    assert found[30]["my_answers"] is None
    assert said == [
        "in.jsonl, row 31 (line 31): it has no 'context'",
        "in.jsonl, row 32 (line 32): must be an object, not '[1]\\n'",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_resumed_after_any_step_the_output_is_the_same(model: LengthAdaptiveModel, tmp_path: Path, suffix: str) -> None:
    """A run is ended before each call that writes to disk in turn, until one is not ended any more."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    answerer = BulkAnswerer(model)
    source, expected = write(tmp_path / "in.jsonl", [*records(20), {}]), tmp_path / f"expected{suffix}"
    run(answerer, source, expected)
    output = tmp_path / f"out{suffix}"
    ends = 0
    for name, home in (("fsync", os), ("replace", Path), ("unlink", Path), ("rmtree", shutil)):
        step = 0
        while ended_at(home, name, step, lambda: run(answerer, source, output)):
            assert (tmp_path / f"out{suffix}.answering").is_dir()
            with pytest.raises(InvalidInputError, match="continue it with --resume"):
                run(answerer, source, output)
            assert run(answerer, source, output, resume=True) == BulkResult(21, 1)
            assert output.read_bytes() == expected.read_bytes()
            assert not (tmp_path / f"out{suffix}.answering").exists()
            output.unlink()
            step += 1
        output.unlink()
        ends += step
    assert ends > 10


def ended_at(home: object, name: str, step: int, call: Callable[[], object]) -> bool:
    """Whether a call was ended before the function was called for the time with this number."""
    function, calls = getattr(home, name), 0

    def counted(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls > step:
            raise Killed
        return function(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(home, name, counted)
        try:
            call()
        except Killed:
            return True
    return False


@pytest.mark.usefixtures("small_blocks")
def test_a_resumed_run_answers_only_what_is_left(
    model: LengthAdaptiveModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer = BulkAnswerer(model)
    source, output = write(tmp_path / "in.jsonl", records(20)), tmp_path / "out.jsonl"
    assert ended_at(os, "fsync", 3, lambda: run(answerer, source, output))  # the header, the rows, their entry, …
    with (tmp_path / "out.jsonl.answering" / "answers.jsonl").open("a") as stream:
        stream.write('[[], "half a li')
    seen: list[int] = []
    answer = BulkAnswerer.answer

    def counted(self: BulkAnswerer, rows: list[Row]) -> list[AnsweredRow]:
        seen.extend(row.number for row in rows)
        return answer(self, rows)

    monkeypatch.setattr(BulkAnswerer, "answer", counted)
    run(answerer, source, output, resume=True)
    assert sorted(seen) == list(range(8, 21))
    assert len(output.read_text().splitlines()) == 20


@pytest.mark.usefixtures("small_blocks")
def test_another_job_is_not_resumed(model: LengthAdaptiveModel, tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.jsonl", records(20)), tmp_path / "out.jsonl"
    assert ended_at(os, "fsync", 5, lambda: run(BulkAnswerer(model), source, output))
    others: list[tuple[BulkAnswerer, dict[str, Any], str]] = [
        (BulkAnswerer(model, length_config="half"), {}, "its length_config is 'full', here it is 'half'"),
        (BulkAnswerer(model, InputColumns("context", "question")), {}, "its columns is"),
        (BulkAnswerer(model, None, AnswerOptions.for_model(model.max_length, top_k=2)), {}, "its options is"),
        (BulkAnswerer(model), {"prefix": "my_"}, "its prefix is"),
    ]
    for answerer, options, why in others:
        with pytest.raises(InvalidInputError, match=why):
            run(answerer, source, output, resume=True, **options)
    write(source, records(21))
    with pytest.raises(InvalidInputError, match="its input is"):
        run(BulkAnswerer(model), source, output, resume=True)
    write(source, records(20))
    assert run(BulkAnswerer(model), source, output, resume=True).num_rows == 20


def test_a_damaged_work_folder_is_refused(model: LengthAdaptiveModel, tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.jsonl", records(3)), tmp_path / "out.jsonl"
    assert ended_at(Path, "replace", 0, lambda: run(BulkAnswerer(model), source, output))
    (tmp_path / "out.jsonl.answering" / "answers.jsonl").write_text("")
    with pytest.raises(InvalidInputError, match="has lost its end"):
        run(BulkAnswerer(model), source, output, resume=True)


def test_strict_refuses_before_anything_is_answered(model: LengthAdaptiveModel, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"id": "a", **records(1)[0]}, {"id": "b", "question": "", "context": "a"}])
    with pytest.raises(DataError, match=r"in\.jsonl, row 2 \(line 2\), id 'b': question is empty.*--strict refuses it"):
        run(BulkAnswerer(model, InputColumns(id="id")), source, tmp_path / "out.jsonl", strict=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_prefix_that_no_file_could_hold(model: LengthAdaptiveModel, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is not valid Unicode text; give another --prefix"):
        run(BulkAnswerer(model), write(tmp_path / "in.jsonl", records(1)), tmp_path / "out.csv", prefix="\udcff")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("rows", "columns", "error", "why"),
    [
        ([{"a": 1}], InputColumns(), DataError, r"has no column 'question'; its columns are 'a'"),
        ([records(1)[0]], InputColumns(id="key"), DataError, "has no column 'key'"),
        ([[1]], InputColumns(), DataError, r"it has none at all; row 1 \(line 1\): must be an object"),
        ([{**records(1)[0], "score": 1}], InputColumns(), InvalidInputError, "a column 'score' already; give --prefix"),
    ],
)
def test_columns_that_do_not_fit(
    model: LengthAdaptiveModel, tmp_path: Path, rows: list[Any], columns: InputColumns, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        run(BulkAnswerer(model, columns), write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_paths_that_do_not_fit(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", records(1))
    (tmp_path / "link.jsonl").symlink_to(source)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "old.csv").write_text("")
    cases = [
        (source, source, "is the input itself"),
        (source, tmp_path / "link.jsonl", "is the input itself"),
        (source, tmp_path / "folder.csv", "is a folder"),
        (source, tmp_path / "none" / "out.csv", "there is no folder"),
        (source, tmp_path / "out.txt", "must end with"),
        (source, tmp_path / "old.csv", "exists already; give another path, or replace it with --force"),
        (tmp_path / "none.csv", tmp_path / "out.csv", "cannot read .*none.csv: No such file"),
    ]
    for given, output, why in cases:
        with pytest.raises((InvalidInputError, DataError), match=why):
            BulkFiles.checked(given, output)
    with pytest.raises(InvalidInputError, match="is the input itself"):
        BulkFiles.checked(source, source, force=True)


def test_force_replaces_an_old_output(model: LengthAdaptiveModel, tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.jsonl", records(2)), tmp_path / "out.csv"
    output.write_text("old")
    assert ended_at(Path, "replace", 0, lambda: run(BulkAnswerer(model), source, output, force=True))
    assert output.read_text() == "old"
    with pytest.raises(InvalidInputError, match="exists already"):
        run(BulkAnswerer(model), source, output, resume=True)
    run(BulkAnswerer(model), source, output, resume=True, force=True)
    assert output.read_text().startswith("id,question,context,answer,score,start,end,error")


def test_a_changed_input_is_noticed(
    model: LengthAdaptiveModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, answer = write(tmp_path / "in.jsonl", records(2)), BulkAnswerer.answer

    def changing(self: BulkAnswerer, rows: list[Row]) -> list[AnsweredRow]:
        write(source, records(3))
        return answer(self, rows)

    monkeypatch.setattr(BulkAnswerer, "answer", changing)
    with pytest.raises(DataError, match="has changed while it was being read"):
        run(BulkAnswerer(model), source, tmp_path / "out.jsonl")


@pytest.mark.parametrize("content", ["", "question,context\n"])
def test_no_rows_give_no_rows(model: LengthAdaptiveModel, tmp_path: Path, content: str) -> None:
    source = tmp_path / ("in.csv" if content else "in.jsonl")
    source.write_text(content)
    assert run(BulkAnswerer(model), source, tmp_path / "out.csv") == BulkResult(0, 0)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1
