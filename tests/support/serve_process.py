"""`dynamic-tinybert serve` as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMMAND = Path(sys.executable).with_name("dynamic-tinybert")


@dataclass
class ServeProcess:
    """A server that runs.

    Attributes:
        process: The process.
        url: Where it takes requests.
    """

    process: subprocess.Popen[str]
    url: str

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; returns the exit code and what standard error has."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@contextmanager
def serve_process(bundle: Path, *options: str, **variables: str) -> Iterator[ServeProcess]:
    """A server for a bundle on a free port, from when it is ready; it is killed at the end if it still runs.

    Args:
        bundle: The bundle.
        options: Further options of the command.
        variables: Variables of the environment.
    """
    process = subprocess.Popen(
        [COMMAND, "serve", "--bundle", bundle, "--port", "0", "--num-threads", "1", *options],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        if not line.startswith("listening on http://"):
            raise AssertionError(f"{line}{process.stderr.read()}")
        yield ServeProcess(process, line.split()[-1])
    finally:
        process.kill()
        process.communicate()
