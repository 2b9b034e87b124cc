"""Run a system in a process of its own, which is stopped between requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from tempfile import TemporaryFile
from typing import Any

from .systems import System
from benchmarks.common import ROOT, resident_bytes


class SystemProcess:
    """A worker (see worker.py). It is stopped (SIGSTOP) between requests, so that no idle thread pool spins."""

    def __init__(self, system: System, threads: int, cache: str | None = None) -> None:
        options = {**system.options, "threads": threads} | ({"cache": cache} if cache else {})
        places = (system.environment.get("PYTHONPATH", ""), str(ROOT), os.environ.get("PYTHONPATH", ""))
        path = os.pathsep.join(filter(None, places))
        self._log = TemporaryFile("w+")  # noqa: SIM115 - holds what libraries print, in case the worker fails; `end` closes it
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.worker", system.loader, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **system.environment, "PYTHONPATH": path},
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

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
