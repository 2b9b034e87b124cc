"""Training from end to end, in Python and in the shell."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from transformers import AutoModelForQuestionAnswering
from typer.testing import CliRunner

from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.modeling.tasks.task import encoder_of
from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError, TrainingError
from dynamic_tinybert.training import TrainingOptions, cli, train
from dynamic_tinybert.training.progress import Progress

OPTIONS = TrainingOptions(max_steps=6, batch_size=8, save_steps=3)


def test_fine_tuning_gives_an_ordinary_checkpoint_that_answers(
    tiny_checkpoint: Path, questions: Path, tmp_path: Path
) -> None:
    options = TrainingOptions(max_steps=100, batch_size=16, learning_rate=4e-3, dropout=0.0)
    lines: list[str] = []
    result = train(
        tiny_checkpoint, tmp_path / "new", questions, options=options, validation=questions, say=lines.append
    )
    assert result.path == tmp_path / "new"
    assert sorted(tmp_path.iterdir()) == [result.path]  # nothing is left beside it

    losses = [losses["answers"] for losses in result.losses]
    assert len(losses) == 100
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert result.after[0].name == result.before[0].name == "full"
    assert result.after[0].f1 > result.before[0].f1 + 10
    costs = [point.macs for point in result.after]
    assert costs == sorted(costs, reverse=True)
    assert any(line.startswith("step 100 of 100: loss ") and "min left" in line for line in lines)

    metrics = [json.loads(line) for line in (result.path / "metrics.jsonl").read_text().splitlines()]
    assert metrics == [{"step": step, **losses} for step, losses in enumerate(result.losses, 1)]
    card = (result.path / "README.md").read_text()
    assert "questions.json (SHA-256" in card
    assert f"| full | 1.00 | {result.before[0].f1:.2f} | 1.00 | {result.after[0].f1:.2f} |" in card
    assert str(tmp_path) not in card
    assert "<svg" in (result.path / "front.svg").read_text()

    loaded = load_checkpoint(result.path).model
    other = AutoModelForQuestionAnswering.from_pretrained(result.path)
    before = load_checkpoint(tiny_checkpoint).model
    assert loaded.config.hidden_dropout_prob == before.config.hidden_dropout_prob  # not what it was trained with
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert not torch.equal(loaded.get_parameter("qa_outputs.weight"), before.get_parameter("qa_outputs.weight"))


def test_the_same_arguments_give_the_same_checkpoint(tiny_checkpoint: Path, questions: Path, tmp_path: Path) -> None:
    first, second, other = (
        train(tiny_checkpoint, tmp_path / str(k), questions, options=replace(OPTIONS, seed=seed))
        for k, seed in enumerate((0, 0, 1))
    )
    assert first.losses == second.losses != other.losses
    weights = [(result.path / "model.safetensors").read_bytes() for result in (first, second, other)]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize("objective", ["fine-tune", "front"])
def test_an_interrupted_training_goes_on(
    tiny_checkpoint: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    options = replace(OPTIONS, objective=objective)
    expected = train(tiny_checkpoint, tmp_path / "undisturbed", questions, options=options)
    output = tmp_path / "interrupted"

    def interrupt(progress: Progress, step: int, losses: Mapping[str, float]) -> None:
        if step == 5:  # the last checkpoint is of the third
            raise KeyboardInterrupt
        record(progress, step, losses)

    record = Progress.__call__
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "__call__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_checkpoint, output, questions, options=options)
    assert not output.exists()
    assert (tmp_path / "interrupted.training").is_dir()
    with pytest.raises(TrainingError, match=r"interrupted\.training holds an interrupted training.*--resume"):
        train(tiny_checkpoint, output, questions, options=options)
    with pytest.raises(InvalidInputError, match="its options is"):
        train(tiny_checkpoint, output, questions, options=replace(options, batch_size=4), resume=True)
    result = train(tiny_checkpoint, output, questions, options=options, resume=True)
    assert result.losses == expected.losses
    assert sorted(path.name for path in tmp_path.iterdir()) == ["interrupted", "undisturbed"]


def test_a_student_has_fewer_layers(tiny_checkpoint: Path, questions: Path, tmp_path: Path) -> None:
    result = train(tiny_checkpoint, tmp_path / "student", questions, options=replace(OPTIONS, num_layers=2))
    student = load_checkpoint(result.path).model
    assert student.config.num_hidden_layers == len(encoder_of(student).encoder.layer) == 2
    with pytest.raises(InvalidInputError, match="num_layers is 4; the model has 3 layers"):
        train(tiny_checkpoint, tmp_path / "other", questions, options=replace(OPTIONS, num_layers=4))


def test_what_cannot_be_is_refused_before_anything_is_written(
    tiny_checkpoint: Path, questions: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(InvalidInputError, match="taken exists already"):
        train(tiny_checkpoint, tmp_path / "taken", questions)
    (tmp_path / "none.json").write_text('{"data": []}')
    with pytest.raises(DataError, match="holds no question"):
        train(tiny_checkpoint, tmp_path / "new", tmp_path / "none.json")
    for wrong in (
        {"objective": "magic"},
        {"epochs": 0.0},
        {"learning_rate": -1.0},
        {"dropout": 1.0},
        {"batch_size": 0},
        {"seed": -1},
    ):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            TrainingOptions(**wrong)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.json", "taken"]


def test_the_command_says_what_it_does(tiny_checkpoint: Path, questions: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(cli.train)
    arguments = [str(tiny_checkpoint), str(tmp_path / "new"), "--data", str(questions), "--validation", str(questions)]
    options = ["--objective", "length-drop", "--max-steps", "3", "--batch-size", "4", "--limit", "10"]
    done = CliRunner().invoke(app, [*arguments, *options, "--layer-dropout", "0"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "Training on 9 windows of 9 questions, 3 steps of 4, objective length-drop" in done.stderr
    assert "step 3 of 3: loss " in done.stderr
    *figures, path = done.stdout.splitlines()
    assert path == str(tmp_path / "new")
    assert [line.split()[:2] for line in figures[:2]] == [["before", "full:"], ["before", "0.8:"]]
    assert len(figures) == 22
    with pytest.raises(InvalidInputError, match="objective is 'magic'; give one of fine-tune, "):
        CliRunner().invoke(app, [*arguments, "--objective", "magic"], catch_exceptions=False)


def test_the_extra_that_is_missing_is_named() -> None:
    program = (
        "import sys; sys.modules['accelerate'] = None; from dynamic_tinybert.runtime.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "train", "a", "b", "--data", "c"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "needs accelerate" in done.stderr
    assert "pip install 'dynamic-tinybert[training]'" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_goes_on_after_a_signal(
    tiny_checkpoint: Path, questions: Path, tmp_path: Path, signum: int, code: int
) -> None:
    def command(output: Path, *more: str) -> list[str]:
        options = ["--max-steps", "150", "--batch-size", "8", "--save-steps", "10"]
        program = "import sys; from dynamic_tinybert.runtime.cli import main; sys.exit(main())"
        arguments = ["train", str(tiny_checkpoint), str(output), "--data", str(questions), *options, *more]
        return [sys.executable, "-c", program, *arguments]

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run(command(undisturbed), check=True, env=environment)
    process = subprocess.Popen(command(killed), env=environment)
    checkpoints = tmp_path / "killed.training" / "checkpoints"
    while not any(checkpoints.glob("*/trainer_state.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signum)
    assert process.wait() == code
    assert not killed.exists()
    done = subprocess.run(command(killed, "--resume"), check=True, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == str(killed)
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (killed / name).read_bytes() == (undisturbed / name).read_bytes()
