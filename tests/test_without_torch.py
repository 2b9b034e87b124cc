"""Tests of the runtime pass where PyTorch and what comes with it are not installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.without_torch import HEAVY

ROOT = Path(__file__).parents[1]
QUICK = ("bundles/test_graph_file.py", "commands/test_streams.py", "test_cpu.py", "test_pickling.py", "test_model.py")


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of processes that cannot import the packages, as if they were not installed."""
    folder = tmp_path_factory.mktemp("without")
    for package in HEAVY:
        missing = f'raise ModuleNotFoundError("No module named {package!r}", name={package!r})\n'
        (folder / f"{package}.py").write_text(missing)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path}


def run(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout


def test_some_of_the_runtime(without_torch: dict[str, str]) -> None:
    shown = run(without_torch, "-n", "0", *(f"tests/runtime/{file}" for file in QUICK))
    assert re.search(r"SKIPPED .*test_model.py imports torch", shown)
    assert int(re.findall(r"(\d+) passed", shown)[0]) >= 8


@pytest.mark.slow
def test_all_of_the_runtime(without_torch: dict[str, str]) -> None:
    """Most pass; those that compare with PyTorch are skipped."""
    counts = {
        word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped)", run(without_torch, "tests/runtime"))
    }
    assert counts["passed"] > 5 * counts["skipped"]
