"""What lets compiled graphs answer after fork(), in the parent and in the child.

A child has none of its parent's threads but the one that forked, and OpenVINO waits for its threads for ever. So,

- before the fork, requests that run are waited for, and new ones wait (`gate`); executors that dropped graphs left in
  OpenVINO's pool end, as a graph of the child would be given them; TBB's workers are held where they have no lock;
- in the child, TBB starts new workers, and each graph is compiled anew when it is first asked. What the parent
  compiled is never destroyed there: that would join threads that do not exist, and end the process.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from pathlib import Path
from time import monotonic, sleep
from typing import Protocol
from weakref import WeakSet

import openvino as ov

from . import ops
from .gate import gate

_PATIENCE = 1.0
"""Seconds to wait for threads that other code may keep busy."""


class Forkable(Protocol):
    """What has threads behind it."""

    def abandon(self) -> object:
        """In a child: forget what the parent compiled, and return it to be kept for ever."""


_graphs: WeakSet[Forkable] = WeakSet()
_library: ctypes.CDLL | None = None  # once there is a graph, and so there may be threads
_collects = True  # whether garbage was collected before the fork


def survive_forks(graph: Forkable) -> None:
    """Call `abandon` of a graph, as long as it lives, in each child that this process forks; not a second time."""
    global _library
    if _library is None:
        _library = ops.library()
    _graphs.add(graph)


def _before() -> None:
    global _collects
    gate.close()
    _collects = gc.isenabled()
    gc.disable()  # garbage of the parent must not be destroyed in the child before it is abandoned
    if _library is not None:
        _end_idle_executors()
        _library.dynamic_tinybert_hold_workers(ctypes.c_double(_PATIENCE))
        _wait_until_asleep()


def _after_in_parent() -> None:
    if _collects:
        gc.enable()
    if _library is not None:
        _library.dynamic_tinybert_release_workers()
    gate.open()


def _after_in_child() -> None:
    if _library is not None:
        _library.dynamic_tinybert_replace_workers()
    for graph in list(_graphs):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(graph.abandon()))
    if _collects:
        gc.enable()
    gate.open_in_child()


def _end_idle_executors() -> None:
    """A CPU plugin that goes ends all executors of the process that no graph has."""
    core = ov.Core()
    core.get_property("CPU", "NUM_STREAMS")  # loads the plugin
    del core


def _wait_until_asleep() -> None:
    """Wait until threads that are not Python's, which finish behind the last requests, have nothing to do."""
    end = monotonic() + _PATIENCE
    while monotonic() < end and any(map(_is_running, _native_threads())):
        sleep(0.0002)


def _native_threads() -> list[Path]:
    python = {str(thread.native_id) for thread in threading.enumerate()}
    return [task for task in Path("/proc/self/task").iterdir() if task.name not in python]


def _is_running(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "R"
    except OSError:  # it has ended
        return False


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
