"""README's snippets run as they stand, on small files of the names that they use."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynamic_tinybert.modeling import Scorer
from dynamic_tinybert.runtime.bundles.hub import default_bundle

from support.answerable import write_checkpoint, write_questions
from support.serve_process import serve_process
from support.tiny import tiny_bert, write_tiny_bundle

ROOT = Path(__file__).parents[1]
FENCED = re.compile(r"(<!-- command: \w+ -->\n)?```(\w*)\n(.*?)\n```", re.DOTALL)
BLOCKS = [
    (bool(run_by_ci), language, text) for run_by_ci, language, text in FENCED.findall((ROOT / "README.md").read_text())
]
BASH = [text for run_by_ci, language, text in BLOCKS if language == "bash" and not run_by_ci]
ADDRESS = "http://127.0.0.1:8000"
SERVED = [text for text in BASH if ADDRESS in text or text.endswith(" serve --port 8000")]
SHELL = [text for text in BASH if text not in SERVED]
PYTHON = [text for _, language, text in BLOCKS if language == "python"]

PIP = """#!/bin/sh
# In the place of pip, which has nothing to install here: knows this folder and its extras.
exec {python} - "$@" <<'END'
import re, sys, tomllib
extras = tomllib.load(open({project!r}, "rb"))["project"]["optional-dependencies"]
command, *requirements = sys.argv[1:]
asked = [re.fullmatch(r"\\.(?:\\[([a-z,]+)\\])?", requirement) for requirement in requirements]
wanted = [name for match in asked if match and match[1] for name in match[1].split(",")]
sys.exit(command != "install" or not all(asked) or not set(wanted) <= set(extras))
END
"""

COMMAND = """#!/bin/sh
# The command itself, with less to do. What it calibrates has random weights, so that it may find nothing faster that is
# as good; a reader would have a calibrated bundle then.
case "$1" in
train) exec {command} "$@" --max-steps 2 ;;
export) exec {command} "$@" --no-tune ;;
calibrate)
    {command} "$@" --evaluations 1 --budget-minutes 0.5 2>errors.txt && exit
    grep -q "minutes were too short: of .* length configurations" errors.txt || {{ cat errors.txt >&2; exit 1; }}
    rm -r bundle && cp -r {embedded} bundle ;;
*) exec {command} "$@" ;;
esac
"""


def test_every_block_is_run_by_a_test_or_in_ci() -> None:
    assert sum(run_by_ci for run_by_ci, *_ in BLOCKS) == 2
    assert len(SHELL) >= 4
    assert len(PYTHON) >= 1
    assert {language for _, language, _ in BLOCKS} == {"bash", "python", ""}  # without a language: a drawing


@pytest.fixture(params=["embedded", "attention", "few scorers"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Bundles of six layers, by what they select."""
    folder = tmp_path / "bundle"
    if request.param == "embedded":
        folder.symlink_to(default_bundle())
        return folder
    torch.manual_seed(0)
    scorers = {layer: Scorer(32) for layer in (1, 3)} if request.param == "few scorers" else None
    return write_tiny_bundle(folder, tiny_bert(num_hidden_layers=6), scorers=scorers)


@pytest.mark.parametrize("block", PYTHON)
def test_python(block: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle.parent)
    shape = (2, 50)
    names: dict[str, Any] = {
        "input_ids": np.random.default_rng(0).integers(5, 100, shape),
        "mask": np.ones(shape, np.int64),
        "types": (np.arange(50) > 8).astype(np.int64) * np.ones(shape, np.int64),
    }
    exec(compile(block, "README.md", "exec"), names)
    asyncio.run(names["main"]())
    assert names["out"].start_logits.shape == shape


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_server_answers() -> None:
    start, ask = SERVED
    assert start.splitlines() == ["pip install '.[serving]'", "dynamic-tinybert serve --port 8000"]
    with serve_process(default_bundle()) as server:
        done = subprocess.run(
            ["bash", "-euc", ask.replace(ADDRESS, server.url)], capture_output=True, text=True, check=True
        )
    answer = json.loads(done.stdout)
    assert answer["answer"] == "Jane Austen"
    assert answer.keys() >= {"length_config", "ms", "budget_met"}


@pytest.mark.slow
@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.splitlines()[-1].split()[1])
def test_shell(block: str, tmp_path: Path) -> None:
    """Each block in a folder of its own, which has what a reader has by then."""
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "activate").touch()
    pip = PIP.format(python=sys.executable, project=str(ROOT / "pyproject.toml"))
    command = COMMAND.format(command=Path(sys.executable).with_name("dynamic-tinybert"), embedded=default_bundle())
    for name, text in {"pip": pip, "dynamic-tinybert": command}.items():
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    for name in ("CHECKPOINT", "Intel/dynamic_tinybert"):
        write_checkpoint(tmp_path / name, max_position_embeddings=512)
    write_questions(tmp_path / "validation.json", seed=1)
    for name in ("squad.json", "questions.json"):
        write_articles(tmp_path / name)
    (tmp_path / "questions.jsonl").write_text('{"question": "where was the a ?", "context": "The a was in 2 1 ."}\n')
    if " export " not in block:
        write_tiny_bundle(tmp_path / "bundle", tiny_bert(max_position_embeddings=512))
    (tmp_path / "article.txt").write_text("The a was in 2 1 . The b was in 3 3 .")
    (tmp_path / "documents.txt").write_text("Emma was written by Jane Austen.\nThe sea is blue.\n")
    path = os.pathsep.join([str(binaries), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-eux", "-c", block],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def write_articles(path: Path) -> None:
    """Questions of an article each, as calibration keeps articles whole, and so many that it can split them."""
    (article,) = json.loads(write_questions(path, 400).read_text())["data"]
    articles = [{"title": str(k), "paragraphs": [p]} for k, p in enumerate(article["paragraphs"])]
    path.write_text(json.dumps({"data": articles}))
