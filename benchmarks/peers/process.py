"""Run a system in a process of its own, which is stopped between requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

from benchmarks.common import ROOT, resident_bytes


class WorkerProcess:
    """A program that answers each line of JSON with a line. It is stopped (SIGSTOP) between them, so that no idle
    thread pool spins. Leaving `with` ends it.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        python: str | Path = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start `python -m module arguments`, with further variables in its environment."""
        further = environment or {}
        self._log = TemporaryFile("w+")  # noqa: SIM115 - holds what libraries print, in case the worker fails; `end` closes it
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **further, "PYTHONPATH": python_path(further.get("PYTHONPATH", ""))},
        )

    def ask(self, **command: object) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.send_signal(signal.SIGCONT)
        print(json.dumps(command), file=self._process.stdin, flush=True)
        reply = self._process.stdout.readline()
        if not reply:
            self._log.seek(0)
            raise RuntimeError(f"the worker {self._process.args!r} failed:\n{self._log.read()}")
        self._process.send_signal(signal.SIGSTOP)
        answer: dict[str, Any] = json.loads(reply)
        return answer

    def resident_bytes(self) -> int:
        return resident_bytes(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


def python_path(first: str = "") -> str:
    """A PYTHONPATH with which workers find `benchmarks`."""
    return os.pathsep.join(filter(None, (first, str(ROOT), os.environ.get("PYTHONPATH", ""))))
