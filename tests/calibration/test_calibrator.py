import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from dynamic_tinybert.calibration import calibrate, cli, stages
from dynamic_tinybert.calibration.measurements import FRONT, MeasuredFront, measured_front
from dynamic_tinybert.calibration.search.schedules import Schedule
from dynamic_tinybert.calibration.search.trial import Trial
from dynamic_tinybert.calibration.significance.learnt import fit_or_load_scorers
from dynamic_tinybert.calibration.time_needed import Measurement, seconds_to_report
from dynamic_tinybert.modeling.scorer import Scorer
from dynamic_tinybert.runtime import LengthAdaptiveModel, QuestionAnswerer
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.bundles.hub import default_bundle
from dynamic_tinybert.runtime.common.errors import CalibrationError, DataError, InvalidInputError, LengthConfigError
from dynamic_tinybert.runtime.encoder.scorer_file import load_scorer_tensors
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import evaluate
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing

from support.tiny import tiny_bert, write_tiny_bundle

PEOPLE = ["Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas"]
PLACES = ["Paris", "Rome", "Oslo", "Madrid", "Vienna", "Lisbon", "Dublin", "Athens", "Prague", "Berlin"]


def write_data(path: Path, *, articles: int = 20, answers: bool = True) -> Path:
    """A SQuAD file about who lives where, 20 questions for each article."""
    random = np.random.default_rng(0)

    def article(title: int) -> dict[str, object]:
        homes = list(zip(PEOPLE, random.permutation(PLACES).tolist(), strict=True))
        context = " ".join(
            f"{who} lives in {place} and works there as number {random.integers(1000)}." for who, place in homes
        )
        questions = [
            {"id": f"{title}-{verb}-{who}", "question": f"Where does {who} {verb}?"}
            | ({"answers": [{"text": place, "answer_start": context.index(place)}]} if answers else {})
            for who, place in homes
            for verb in ("live", "work")
        ]
        return {"title": str(title), "paragraphs": [{"context": context, "qas": questions}]}

    path.write_text(json.dumps({"data": [article(title) for title in range(articles)]}))
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the embedded bundle."""
    return Path(shutil.copytree(default_bundle(), tmp_path / "bundle"))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("significance", ["learnt", "attention"])
def test_a_bundle_gets_configurations_that_do_what_is_said_of_them(
    bundle: Path, tmp_path: Path, significance: str
) -> None:
    data = write_data(tmp_path / "data.json")
    report = tmp_path / "report.html"
    options = f"--significance {significance} --evaluations 12 --budget-minutes 15 --num-threads 2".split()
    options += ["--fitting-steps", "20"] if significance == "learnt" else []  # the bundle's scorers, fitted further
    app = typer.Typer()
    app.command()(cli.calibrate)
    run = CliRunner().invoke(
        app, [str(bundle), "--data", str(data), "--report", str(report), *options], catch_exceptions=False
    )
    assert run.exit_code == 0, run.output
    assert "full" in run.stdout
    made = open_bundle(bundle)
    assert made.significance == significance
    assert len(made.length_configs) > 1
    assert not list(tmp_path.glob("*.calibration"))
    assert report.read_text().startswith("<!DOCTYPE html>")

    model = LengthAdaptiveModel.from_pretrained(bundle, num_threads=2)
    for name, named in made.length_configs.items():
        figures = dict(named.measured or {})
        assert figures["data"].startswith("data.json, ")
        if name == "full":
            assert figures["macs_fewer"] == 1
            continue
        assert figures["macs_fewer"] > 1
        mean, low, high = figures["f1_against_full"]
        assert low <= mean <= high
        assert named.config.selecting_layers
    answerer = QuestionAnswerer(model)
    example = read_squad(data)[0]
    for name in model.length_configs:
        assert answerer(example.question, example.context, length_config=name)["answer"] in example.context


def test_too_short_a_budget_changes_nothing_and_can_go_on(tmp_path: Path) -> None:
    """With random weights and a handful of tokens nothing is faster without changing the answers."""
    bundle = write_tiny_bundle(tmp_path / "tiny", tiny_bert(max_position_embeddings=512))
    data = write_data(tmp_path / "data.json", answers=False)
    before = contents(bundle)
    lines: list[str] = []
    start = time.monotonic()
    with pytest.raises(CalibrationError, match=r"1e-06 minutes were too short: of 0 .* is unchanged; .*--resume"):
        calibrate(bundle, data, budget_minutes=1e-6, say=lines.append)
    minutes = (time.monotonic() - start) / 60
    warning, needed = lines[:2]
    assert re.sub(r" only, .*", "", warning) == "Warning: the 60 questions to report on are of 3 articles"
    said = re.fullmatch(
        r"About (\d+\.\d) minutes are needed whatever the budget \(.*for measuring and reporting what was found\): "
        r"more than the 1e-06 of --budget-minutes, which will be exceeded",
        needed,
    )
    assert said is not None, lines
    assert minutes <= 1.1 * float(said[1])
    assert contents(bundle) == before
    journal = tmp_path / "tiny.calibration" / "journal.jsonl"
    recorded = journal.read_bytes()
    with pytest.raises(CalibrationError, match=r"tiny.calibration holds .* --resume, or delete the folder"):
        calibrate(bundle, data, budget_minutes=1e-6)
    with pytest.raises(CalibrationError, match="were too short"):
        calibrate(bundle, data, budget_minutes=1e-6, resume=True)
    assert journal.read_bytes() == recorded  # nothing was measured again
    with pytest.raises(InvalidInputError, match="its seed is 0, here it is 1"):
        calibrate(bundle, data, budget_minutes=1e-6, seed=1, resume=True)


@pytest.mark.slow
def test_own_limits_stand_beside_the_usual_ones(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny", tiny_bert(max_position_embeddings=512))
    data = write_data(tmp_path / "data.json", answers=False)
    with pytest.raises(CalibrationError, match=r"within 7\.5 F1 of it"):  # the largest limit
        calibrate(bundle, data, budget_minutes=1e-6, limits={"quick": 7.5, "fast": 2})
    header = json.loads((tmp_path / "tiny.calibration" / "journal.jsonl").read_text().splitlines()[0])
    assert header["journal"]["limits"] == {"accurate": 0.5, "balanced": 1.0, "fast": 2, "quick": 7.5}


@pytest.mark.parametrize("text", ["quick", "quick=much", "quick=1", "=1.5"])
def test_limits_of_the_command(text: str) -> None:
    if text == "quick=1":
        assert cli._limits([text, "slow=0.2"]) == {"quick": 1.0, "slow": 0.2}
        with pytest.raises(InvalidInputError, match="names 'quick' twice"):
            cli._limits([text, text])
    elif text == "=1.5":  # refused as a name
        with pytest.raises(LengthConfigError, match="'': a name is made of"):
            calibrate("nowhere", "nothing", limits=cli._limits([text]))
    else:
        with pytest.raises(InvalidInputError, match="is not NAME=POINTS"):
            cli._limits([text])


def test_the_time_that_reporting_takes_is_of_questions_and_the_fronts_of_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of several windows: what is kept free at the end was as many times too much."""
    bundle = write_tiny_bundle(tmp_path / "tiny", tiny_bert(max_position_embeddings=256))
    data = write_data(tmp_path / "data.json", answers=False)
    windows_of = Windowing(bundle / "tokenizer.json", 256)
    counts = {len(windows_of(example)) for example in read_squad(data)}
    assert min(counts) > 1
    estimated: list[tuple[float, float]] = []
    timed: list[int] = []

    def to_report(
        front: Measurement, ms_per_example: float, ms_per_window: float, num_examples: int, num_names: int
    ) -> float:
        estimated.append((ms_per_example, ms_per_window))
        return seconds_to_report(front, ms_per_example, ms_per_window, num_examples, num_names)

    def measured(*arguments: Any) -> MeasuredFront:  # noqa: ANN401 - those of measured_front
        timed.append(len(arguments[-1]))
        return measured_front(*arguments)

    monkeypatch.setattr(stages, "seconds_to_report", to_report)
    monkeypatch.setattr(stages, "measured_front", measured)
    with pytest.raises(CalibrationError, match="were too short"):
        calibrate(bundle, data, budget_minutes=1e-6)
    ((ms_per_example, ms_per_window),) = estimated
    assert min(counts) - 0.01 <= ms_per_example / ms_per_window <= max(counts) + 0.01
    assert timed == [FRONT.windows]  # as many as their time was kept for


def test_a_calibration_does_not_go_on_with_other_trained_scorers(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data.json", answers=False)
    for seed in (0, 1):
        torch.manual_seed(seed)
        scorers = {0: Scorer(32, width=8, kernel_sizes=(3,))}
        bundle = write_tiny_bundle(tmp_path / "tiny", tiny_bert(max_position_embeddings=512), scorers=scorers)
        expected, match = (CalibrationError, "were too short") if seed == 0 else (InvalidInputError, "its scorers is")
        with pytest.raises(expected, match=match):
            calibrate(bundle, data, significance="trained", budget_minutes=1e-6, resume=seed > 0)


def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny", tiny_bert())
    data = write_data(tmp_path / "data.json")
    with pytest.raises(InvalidInputError, match="significance is 'luck'; give 'learnt', 'trained' or 'attention'"):
        calibrate(bundle, data, significance="luck")
    with pytest.raises(InvalidInputError, match="budget_minutes is -1; give a positive number"):
        calibrate(bundle, data, budget_minutes=-1)
    with pytest.raises(DataError, match="too few questions"):
        calibrate(bundle, write_data(tmp_path / "few.json", articles=3))
    one = json.loads(data.read_text())
    one["data"] = [{"title": "only", "paragraphs": [p for article in one["data"] for p in article["paragraphs"]]}]
    (tmp_path / "one.json").write_text(json.dumps(one))
    with pytest.raises(DataError, match=r"400 for fitting, 0 for choosing, 0 for reporting, .* give more articles"):
        calibrate(bundle, tmp_path / "one.json")
    with pytest.raises(LengthConfigError, match="'full' keeps everything"):
        calibrate(bundle, data, limits={"full": 1})
    with pytest.raises(LengthConfigError, match="'Quick': a name is made of"):
        calibrate(bundle, data, limits={"Quick": 1})
    with pytest.raises(InvalidInputError, match="the limit of 'quick' is -1; give a positive number of points"):
        calibrate(bundle, data, limits={"quick": -1})
    with pytest.raises(InvalidInputError, match="fitting_steps must be an int of at least 1, not 0"):
        calibrate(bundle, data, fitting_steps=0)
    assert not list(tmp_path.glob("*.calibration"))


RUN = """
import json, sys
from pathlib import Path
from typing import Any
from dynamic_tinybert.calibration import calibrate
from dynamic_tinybert.runtime.tasks.question_answering import gold_answers
bundle, data, log = sys.argv[1:]
evaluate = gold_answers.GoldAnswers.evaluate
def logged(self, model, config, *, batch_size, span=slice(None)):
    with open(log, "a") as file:
        file.write(json.dumps([config.keep_ratios, config.thresholds, span.start, span.stop]) + "\\n")
    return evaluate(self, model, config, batch_size=batch_size, span=span)
gold_answers.GoldAnswers.evaluate = logged
result = calibrate(bundle, data, evaluations=14, fitting_steps=20, resume=True, num_threads=2, say=lambda line: None)
print(json.dumps([[t.config.keep_ratios, t.config.thresholds, t.scores, t.latency_ms] for t in result.points]))
"""


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_like_an_undisturbed_run(bundle: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data.json")
    work = tmp_path / "bundle.calibration"

    def start() -> subprocess.Popen[str]:
        log = tmp_path / "log"
        log.write_text("")
        return subprocess.Popen(
            [sys.executable, "-c", RUN, str(bundle), str(data), str(log)], stdout=subprocess.PIPE, text=True
        )

    process = start()  # fits and measures latencies; what follows starts from these in both runs
    journal = work / "journal.jsonl"
    while not (journal.exists() and b'"trial"' in journal.read_bytes()):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    recorded = [line for line in journal.read_text().splitlines() if '"trial"' not in line]
    journal.write_text("\n".join(recorded) + "\n")
    shutil.copytree(work, tmp_path / "copy")
    untouched = contents(bundle)

    undisturbed = json.loads(start().communicate()[0])
    assert not work.exists()
    shutil.rmtree(bundle)
    shutil.copytree(default_bundle(), bundle)
    shutil.copytree(tmp_path / "copy", work)
    random = np.random.default_rng(0)
    kills = 0
    while kills < 5:
        known = journal_keys(journal)
        process = start()
        try:
            printed, _ = process.communicate(timeout=float(random.uniform(2, 8)))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        assert contents(bundle) == untouched
        assert set(known) <= set(journal_keys(journal))
        assert max(Counter(journal_keys(journal)).values(), default=1) == 1
        assert not set(known) & set((tmp_path / "log").read_text().splitlines())
    else:
        printed, _ = start().communicate()
    assert kills >= 3  # a run that ends too soon would show nothing
    assert json.loads(printed) == undisturbed
    open_bundle(bundle)


def journal_keys(journal: Path) -> list[str]:
    entries = [json.loads(line) for line in journal.read_text().splitlines() if line.endswith("}")]
    return [entry["key"] for entry in entries if entry.get("kind") == "trial"]


def test_trials_are_joined_by_their_numbers_of_questions() -> None:
    from dynamic_tinybert.calibration.search.trial import joined
    from dynamic_tinybert.runtime import LengthConfig

    config = LengthConfig.full(2)
    both = joined(Trial(config, (100.0,), 10, 1), Trial(config, (0.0, 50.0, 50.0), 30, 3))
    assert (both.score, both.macs, both.latency_ms) == (50, 25, 2.5)


def test_the_rule_comes_behind_the_last_layer_but_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    questions = read_squad(write_data(tmp_path / "data.json", articles=3))
    bert = tiny_bert(num_hidden_layers=4)
    for name, layers, selecting in (("own", (1, 2), (1,)), ("rule", (1,), (1, 2))):
        scorers = {layer: Scorer(32) for layer in layers}
        source = open_bundle(write_tiny_bundle(tmp_path / name, bert, scorers=scorers))
        for _ in range(2):  # made, and taken from the folder
            learnt = fit_or_load_scorers(source, questions, tmp_path / f"fit {name}", 60.0, 0, trained=True)
            config = learnt.sample.length_config(Schedule((1, 0.5, 0.5, 0.5)))
            assert config.selecting_layers == selecting
            assert list(learnt.sample.layers) == list(layers)
            assert sorted(load_scorer_tensors(learnt.scorers)) == [1, 2]  # rules among them


def test_trained_scorers_are_taken_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    scorers = {layer: Scorer(32) for layer in (0, 1)}
    source = open_bundle(write_tiny_bundle(tmp_path / "bundle", tiny_bert(), scorers=scorers))
    questions = read_squad(write_data(tmp_path / "data.json", articles=3))
    learnt = fit_or_load_scorers(source, questions, tmp_path / "fit", 60.0, 0, trained=True)
    assert source.scorers is not None
    assert learnt.scorers.read_bytes() == source.scorers.read_bytes()
    assert list(learnt.sample.layers) == [0, 1]
    assert learnt.line == "Took the trained scorers of layers 0, 1"
    config = learnt.sample.length_config(Schedule((0.5, 0.25, 0.25)))
    model = LengthAdaptiveModel(source)
    result = evaluate(model, questions, length_config=config, batch_size=8)
    assert result.mean_kept[0] / result.mean_length == pytest.approx(0.5, abs=0.02)
    plain = open_bundle(write_tiny_bundle(tmp_path / "plain", tiny_bert()))
    with pytest.raises(InvalidInputError, match="has no scorers that were trained with its model"):
        fit_or_load_scorers(plain, questions, tmp_path / "none", 60.0, 0, trained=True)
    assert not (tmp_path / "none").exists()
