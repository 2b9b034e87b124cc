"""A pool of child processes that serve many jobs, watched from outside and replaced when one dies, hangs or swells."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Any

from dynamic_tinybert.runtime.common.errors import DynamicTinyBertError

_MIB = 2**20
_LOOKS = 0.02  # seconds between two looks at a child's memory
_JOBS_OF_A_CHILD = 250
_START_SECONDS = 120.0  # imports on a busy machine

Job = Callable[..., str]
"""Does something with its arguments and says how it went; an error of our tree is as good as a result."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        kind: `done`, or `error` for one of our tree; `foreign` for any other, `crash`, `hang` or `memory`.
        detail: What the job said, the error, or the signal.
        mib: Most resident memory of the child while it had the job.
    """

    kind: str
    detail: str
    mib: float

    @property
    def is_right(self) -> bool:
        return self.kind in ("done", "error")


class _Child:
    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, job), daemon=True)
        self.process.start()
        other.close()
        self.jobs = 0
        if not self.connection.poll(_START_SECONDS):
            self.end()
            raise TimeoutError("a child did not start")
        self.connection.recv()

    def run(self, arguments: Sequence[Any], seconds: float, most_mib: float) -> Outcome:
        self.jobs += 1
        self.connection.send(arguments)
        end, largest = monotonic() + seconds, 0.0
        while not self.connection.poll(_LOOKS):
            largest = max(largest, self._mib())
            if largest > most_mib:
                self.end()
                return Outcome("memory", f"more than {most_mib:.0f} MiB", largest)
            if monotonic() > end:
                self.end()
                return Outcome("hang", f"more than {seconds:g} s", largest)
        try:
            kind, detail, peak = self.connection.recv()
        except EOFError:
            self.process.join()
            return Outcome("crash", f"exit code {self.process.exitcode}", largest)
        if peak > most_mib:
            return Outcome("memory", f"{peak:.0f} MiB, then: {kind} {detail}", peak)
        return Outcome(kind, detail, peak)

    def _mib(self) -> float:
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / _MIB

    @property
    def is_usable(self) -> bool:
        return self.process.is_alive() and self.jobs < _JOBS_OF_A_CHILD

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def run_all(
    job: Job,
    arguments: Sequence[Sequence[Any]],
    *,
    children: int = 2,
    seconds: float = 60.0,
    most_mib: float = 2048.0,
) -> Iterator[Outcome]:
    """Outcomes of a job for each of its arguments, in their order.

    Args:
        job: A function of a module that children can import.
        arguments: What it is called with each time; it must pickle.
        children: Processes side by side.
        seconds: After so long a job hangs.
        most_mib: More resident memory than this is an outcome of its own.
    """
    idle: SimpleQueue[_Child | None] = SimpleQueue()
    for _ in range(children):
        idle.put(None)

    def run(call: Sequence[Any]) -> Outcome:
        child = idle.get()
        try:
            if child is None or not child.is_usable:
                if child is not None:
                    child.end()
                child = _Child(job)
            return child.run(call, seconds, most_mib)
        finally:
            idle.put(child)

    try:
        with ThreadPoolExecutor(children) as threads:
            yield from threads.map(run, arguments)
    finally:
        for _ in range(children):
            if (child := idle.get()) is not None:
                child.end()


def _serve(connection: Connection, job: Job) -> None:
    connection.send("ready")
    while True:
        try:
            arguments = connection.recv()
        except EOFError:
            return
        Path("/proc/self/clear_refs").write_text("5")  # the peak of the memory begins anew
        try:
            kind, detail = "done", job(*arguments)
        except DynamicTinyBertError as error:
            kind, detail = "error", f"{type(error).__name__}: {error}"
        except BaseException:
            kind, detail = "foreign", traceback.format_exc()
        status = Path("/proc/self/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        connection.send((kind, detail[-4000:] if kind == "foreign" else detail[:4000], peak))
