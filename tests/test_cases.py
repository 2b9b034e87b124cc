"""Data files as people have them, through the commands (data/cases/README.md says what each must give)."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dynamic_tinybert.calibration import calibrate
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.bundles.hub import default_bundle
from dynamic_tinybert.runtime.common.errors import CalibrationError, DataError
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer
from dynamic_tinybert.training import TrainingOptions, train
from dynamic_tinybert.training.tasks.question_answering.rows import answered_rows, read_answered

from support.tiny import tiny_bert, write_tiny_bundle

CASES = Path(__file__).parent / "data" / "cases"
COMMAND = [sys.executable, "-c", "import sys; from dynamic_tinybert.runtime.cli import main; sys.exit(main())"]
ONE_STEP = TrainingOptions(max_steps=1, batch_size=2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", tiny_bert(max_position_embeddings=512))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


def evaluated(bundle: Path, data: Path, folder: Path, *options: object) -> tuple[dict[str, Any], list[str]]:
    """The figures of `evaluate`, and its lines on standard error."""
    done = run("evaluate", "--bundle", bundle, "--data", data, "--json", folder / "figures.json", *options)
    assert done.returncode == 0, done.stderr
    figures: dict[str, object] = json.loads((folder / "figures.json").read_text())["full"]
    return figures, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("intid.json", ["17", "a2"]),
        ("noid.json", ["#1", "a2"]),
        *(
            (name, ["a1", "a2"])
            for name in ("hfans.json", "rows_data.json", "rows_list.json", "rows.jsonl", "bom.json", "crlf.json")
        ),
    ],
)
def test_both_questions_are_read_and_scored(bundle: Path, tmp_path: Path, name: str, ids: list[str]) -> None:
    figures, errors = evaluated(bundle, CASES / name, tmp_path)
    assert figures["ids"] == ids
    assert len(figures["predictions"]) == 2
    assert (figures["skipped"], figures["squad_v2"], errors) == ([], None, [])


def test_an_over_long_question_is_counted_and_scores_0(bundle: Path, tmp_path: Path) -> None:
    figures, (line,) = evaluated(bundle, CASES / "longq.json", tmp_path)
    content = json.loads((CASES / "longq.json").read_text())
    asked = [question for paragraph in content["data"][0]["paragraphs"] for question in paragraph["qas"]]
    long = max(asked, key=lambda question: len(question["question"]))["id"]
    assert line.startswith(f"longq.json: 1 of {len(asked)} questions cannot be read by the model (scored 0); ")
    assert f"the first is question '{long}': the question is too long" in line
    assert figures["ids"] == [question["id"] for question in asked]
    at = figures["ids"].index(long)
    assert figures["question_f1"][at] == 0
    assert [finding["id"] for finding in figures["skipped"]] == [long]
    done = run("evaluate", "--bundle", bundle, "--data", CASES / "longq.json", "--strict")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"question '{long}': the question is too long" in done.stderr


def test_has_answer_and_no_answer_are_scored_apart(bundle: Path, tmp_path: Path) -> None:
    figures, errors = evaluated(bundle, CASES / "v2.json", tmp_path)
    assert (figures["ids"], errors) == (["a1", "a2", "a3"], [])
    scores = figures["squad_v2"]
    assert isinstance(scores, dict)
    assert (scores["total"], scores["HasAns_total"], scores["NoAns_total"]) == (3, 2, 1)
    assert scores["f1"] == pytest.approx((2 * scores["HasAns_f1"] + scores["NoAns_f1"]) / 3)
    assert scores["f1"] == pytest.approx(figures["f1"])


def covid_qa(path: Path) -> Path:
    """A file in COVID-QA's format: whole articles, integer ids, answers whose places are often off."""
    filler = "the cat was in the hat and the fox was in the box . " * 60
    contexts = [f"{filler}the {letter} was in 1 2 {letter}{letter} . {filler}" for letter in "klm"]
    qas = []
    for context, letter in zip(contexts, "klm", strict=True):
        start = context.index(f"{letter}{letter}")
        for shift in (0, 3):
            answer = {"text": f"{letter}{letter}", "answer_start": start + shift}
            qas.append({"question": f"where was the {letter} ?", "answers": [answer], "is_impossible": False})
    qas[1]["answers"] = [{"text": "the cat", "answer_start": 1}]  # stands often
    articles = []
    for number, context in enumerate(contexts):
        own = [{**question, "id": 100 + 2 * number + k} for k, question in enumerate(qas[2 * number : 2 * number + 2])]
        articles.append({"paragraphs": [{"qas": own, "context": context, "document_id": number}]})
    path.write_text(json.dumps({"data": articles}))
    return path


def test_evaluate_runs_through_the_format_of_covid_qa(bundle: Path, tmp_path: Path) -> None:
    data = covid_qa(tmp_path / "covid.json")
    options = ("--batch-size", 8, "--max-seq-len", 256, "--doc-stride", 64, "--max-answer-len", 5)
    figures, (lost, moved) = evaluated(bundle, data, tmp_path, *options)
    assert figures["ids"] == ["100", "101", "102", "103", "104", "105"]
    assert min(figures["question_windows"]) > 10
    assert max(figures["window_lengths"]) == 256
    assert "covid.json: 1 of 6 questions have an answer that is not where the file says and cannot be corrected" in lost
    assert "the first is question '101': the answer 'the cat' is not at its answer_start 1, and occurs " in lost
    assert moved.startswith(
        "covid.json: 2 of 6 questions have an answer that is not where the file says, but elsewhere"
    )
    assert "the first is question '103'" in moved


@pytest.mark.slow
def test_train_puts_a_misplaced_answer_right_or_refuses_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    result = train(tiny_checkpoint, tmp_path / "new", CASES / "offby1.json", options=ONE_STEP, say=lines.append)
    assert [finding.id for finding in result.findings] == ["a1"]
    assert lines[0] == (
        "offby1.json: 1 of 2 questions have an answer that is not where the file says, but elsewhere (corrected); the "
        "first is question 'a1': the answer 'Ida Kroll' is not at its answer_start 66, but at 65"
    )
    assert "windows of 2 questions" in lines[1]
    done = run("train", tiny_checkpoint, tmp_path / "other", "--data", CASES / "offby1.json", "--strict")
    assert done.returncode == 1
    assert "offby1.json, question 'a1': the answer 'Ida Kroll' is not at its answer_start 66" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]


def test_train_skips_an_over_long_question(tiny_checkpoint: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    data = CASES / "longq.json"
    result = train(tiny_checkpoint, tmp_path / "new", data, options=ONE_STEP, validation=data, say=lines.append)
    assert len(result.findings) == 2
    assert "cannot be read by the model (skipped); " in lines[0]
    assert "cannot be read by the model (scored 0); " in lines[1]
    assert any(score == 0 for score in result.after[0].question_f1)


def test_train_takes_the_unanswerable_question_to_cls(tiny_checkpoint: Path, tmp_path: Path) -> None:
    read = read_answered(CASES / "v2.json")
    tokenize = WindowTokenizer(tiny_checkpoint / "tokenizer.json")
    *answered, impossible = (answered_rows(Windowing(tokenize, 128), [e]) for e in read.examples)
    assert all(any(window.labels["start_positions"] > 0 for window in own) for own in answered)
    assert all(set(window.labels.values()) == {0} for window in impossible)
    result = train(tiny_checkpoint, tmp_path / "new", CASES / "v2.json", options=ONE_STEP, validation=CASES / "v2.json")
    assert result.findings == ()
    assert len(result.after[0].question_f1) == 3


def many(name: str, path: Path, articles: int) -> Path:
    """The questions of a case in many articles."""
    (article,) = json.loads((CASES / name).read_text())["data"]
    copies = [json.loads(json.dumps(article)) for _ in range(articles)]
    for number, copy in enumerate(copies):
        copy["title"] = str(number)
        for question in copy["paragraphs"][0]["qas"]:
            question["id"] += f"-{number}"
    path.write_text(json.dumps({"data": copies}))
    return path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("longq.json", ["600 questions cannot be read by the model (skipped); the first is question "]),
        ("v2.json", ["questions, scored by answers and agreement", "The no-answer threshold is "]),
    ],
)
def test_calibrate_goes_on(tmp_path: Path, name: str, said: list[str]) -> None:
    """With random weights nothing is found, but the questions are read, asked and scored before."""
    bundle = write_tiny_bundle(tmp_path / "tiny", tiny_bert(max_position_embeddings=512))
    lines: list[str] = []
    data = many(name, tmp_path / "data.json", 200 if name == "longq.json" else 120)
    options = {"significance": "attention", "budget_minutes": 1e-6}
    if name == "longq.json":
        with pytest.raises(DataError, match=r"data\.json, question '.*': the question is too long"):
            calibrate(bundle, data, **options, strict=True)
    with pytest.raises(CalibrationError, match="were too short"):
        calibrate(bundle, data, **options, say=lines.append)
    for line in said:
        assert any(line in other for other in lines), lines


@pytest.mark.slow
def test_a_calibrated_bundle_has_the_threshold_of_no_answer(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(default_bundle(), tmp_path / "bundle"))
    data = many("v2.json", tmp_path / "data.json", 120)
    content = json.loads(data.read_text())
    for article in content["data"]:
        for paragraph in article["paragraphs"]:  # so long that it pays to drop tokens
            paragraph["context"] += " Boats pass below it every day, and trains above them." * 20
    data.write_text(json.dumps(content))
    calibrate(bundle, data, significance="trained", budget_minutes=15, evaluations=6, num_threads=2)
    assert open_bundle(bundle).no_answer_threshold is not None
