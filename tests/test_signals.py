"""The tests of signals hold however pytest is started."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow  # it imports what all tests need once more
def test_those_of_sigint_pass_in_the_background_of_a_shell() -> None:
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/runtime/common/test_publish.py"]
    chosen = "test_signals_leave_nothing or test_handlers_are_restored"
    background = ["sh", "-c", '"$@" & wait $!', "sh", *tests, "-k", chosen]
    done = subprocess.run(background, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout
