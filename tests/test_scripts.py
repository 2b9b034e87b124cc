"""Scripts that make or unmake bundles."""

import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch

from dynamic_tinybert.export import export_model
from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.modeling.scorer import Scorer, save_scorers
from dynamic_tinybert.runtime.bundles.files import SCORERS

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_bundle_gives_its_checkpoint_back(
    precision: str, tiny_checkpoint: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    from checkpoint_of_bundle import main

    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    width = load_checkpoint(checkpoint).model.config.hidden_size
    save_scorers({0: Scorer(width, width=8, kernel_sizes=(3,))}, checkpoint / SCORERS)
    if precision == "fp32":
        export_model(checkpoint, tmp_path / "bundle", precision="fp32")
    else:  # SmoothQuant included
        export_model(
            checkpoint,
            tmp_path / "bundle",
            calibration_data=questions,
            validation=questions,
            num_samples=4,
            tune=False,
        )
    main(tmp_path / "bundle", tmp_path / "back")
    expected, actual = (load_checkpoint(folder) for folder in (checkpoint, tmp_path / "back"))
    assert (tmp_path / "back" / SCORERS).read_bytes() == (tmp_path / "bundle" / SCORERS).read_bytes()
    assert actual.scorers.keys() >= {0}
    assert actual.tokenizer.get_vocab() == expected.tokenizer.get_vocab()
    weights = actual.model.state_dict()
    assert weights.keys() == expected.model.state_dict().keys()
    for name, tensor in expected.model.state_dict().items():
        if precision == "fp32":
            assert torch.equal(weights[name], tensor), name
        else:
            assert float((weights[name] - tensor).norm()) <= 0.03 * float(tensor.norm()), name


def _programs() -> list[Path]:
    files = sorted(SCRIPTS.glob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))
    return [
        file for file in files if "__main__" in file.read_text() and file.name != "worker.py"
    ]  # no program for people


@pytest.mark.parametrize("program", _programs(), ids=lambda file: file.name)
def test_every_program_says_what_it_does(
    program: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, which has imported most of what they need: a process for each takes ten times as long."""
    monkeypatch.syspath_prepend(program.parent if program.parent == SCRIPTS else ROOT)
    monkeypatch.setattr(sys, "argv", [str(program), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(program), run_name="__main__")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: {program.name}")
    assert program.read_text().partition('"""')[2].partition("\n")[0] in shown


def test_the_tests_that_are_run_under_sanitizers_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    from sanitize import OP_TESTS

    assert [file for file in OP_TESTS if not (ROOT / file).is_file()] == []
