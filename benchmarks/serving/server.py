"""Start and end `dynamic-tinybert serve`, and look at its processes."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from time import monotonic, sleep
from types import TracebackType
from typing import Self

from benchmarks.serving.connection import Connection, Reply, request

SERVE = (sys.executable, "-c", "from dynamic_tinybert.runtime.cli import main; main()", "serve", "--port", "0")
_ADDRESS = re.compile(rb"http://127\.0\.0\.1:(\d+)")
_START = 180.0  # seconds in which it must be ready


class Server:
    """A server on a free port of 127.0.0.1. Leaving `with` ends it and all processes that it started."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        """Start it with options of `dynamic-tinybert serve`, and wait until it is ready."""
        self._log = TemporaryFile()  # noqa: SIM115 - closed by `kill`
        # should this process be killed, the kernel ends the server
        guard = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        self._process = subprocess.Popen(
            [*guard, *SERVE, *options],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A latency table from the cache may have been measured while the machine was busy.
            env={**os.environ, "DYNAMIC_TINYBERT_CACHE": "off"},
        )
        self._ends_on_sigterm = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self.port = self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The front process."""
        return self._process.pid

    def workers(self) -> list[int]:
        """The processes that run the model: children of the front that have loaded OpenVINO."""
        return [pid for pid in children(self.pid) if b"libopenvino" in _maps(pid)]

    def get(self, path: str) -> Reply:
        """The response to a GET over a connection of its own."""
        return get(self.port, path)

    def terminate(self) -> None:
        """Send SIGTERM to the front."""
        self._process.terminate()

    def wait(self, seconds: float) -> int:
        """The exit status; raises subprocess.TimeoutExpired if the server has not ended by then."""
        return self._process.wait(seconds)

    def log(self) -> str:
        """All that it has printed."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def kill(self) -> None:
        """End it and its workers, without a drain."""
        signal.signal(signal.SIGTERM, self._ends_on_sigterm)
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and not self._log.closed:
            print(f"the server's last lines:\n{self.log()[-3000:]}", file=sys.stderr)
        self.kill()

    def _wait_until_ready(self) -> int:
        end = monotonic() + _START
        while monotonic() < end:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with status {self._process.returncode}:\n{self.log()[-3000:]}")
            found = _ADDRESS.search(self.log().encode())
            if found is not None and is_ready(int(found[1])):
                return int(found[1])
            sleep(0.05)
        raise RuntimeError(f"the server was not ready after {_START:g} s:\n{self.log()[-3000:]}")


def get(port: int, path: str) -> Reply:
    """The response to a GET over a connection of its own; raises OSError if there is no server."""

    async def ask() -> Reply:
        connection = await Connection.open(port)
        try:
            return await asyncio.wait_for(connection.ask(request("GET", path)), 30)
        finally:
            connection.close()

    return asyncio.run(ask())


def is_ready(port: int) -> bool:
    """Whether a server is there and takes requests."""
    try:
        return get(port, "/health").status == 200
    except (OSError, TimeoutError):
        return False


def children(pid: int) -> list[int]:
    """Children of a process, and their children."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue  # the thread has ended
    return found + [grandchild for child in found for grandchild in children(child)]


def _maps(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/maps").read_bytes()
    except OSError:
        return b""  # it has ended


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
