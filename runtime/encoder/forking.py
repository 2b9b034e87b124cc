"""Keep compiled graphs usable after fork(), in the parent and in the child.

A child process has only the thread that forked, and OpenVINO would wait forever for the others. Therefore

- before the fork, running requests finish and new ones wait (`gate`); executors that destroyed graphs left in
  OpenVINO's pool are ended, because OpenVINO would reuse them for graphs of the child; TBB's workers are stopped at a
  place where they hold no lock;
- in the child, TBB starts new workers, and each graph is compiled again on first use. The parent's compiled graphs are
  never destroyed there: that would join threads that do not exist, and end the process.

A signal handler may raise an exception while a fork is being prepared. Python would ignore the exception and skip the
rest of the preparation. Therefore every step is completed, and the exception is raised after os.fork() has returned.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import Protocol
from weakref import WeakSet

import openvino as ov

from . import extension_library
from .gate import gate

_PATIENCE = 1.0
"""Seconds to wait for threads that other code may keep busy."""

_MOST_TRIES = 10
"""How many times a step is tried if signal handlers interrupt it."""


class Forkable(Protocol):
    """An object that relies on threads, which a forked process does not have."""

    def abandon(self) -> object:
        """In a forked process: give up what the parent compiled, and return it so that it is never destroyed."""


_graphs: WeakSet[Forkable] = WeakSet()
_library: ctypes.CDLL | None = None  # once there is a graph, and so there may be threads
_collects = False  # whether garbage collection was enabled before the current fork
_put_off: BaseException | None = None  # what a signal handler raised during that fork


def survive_forks(graph: Forkable) -> None:
    """Make each child that this process forks call `graph.abandon` once, if the graph still exists."""
    global _library
    if _library is None:
        _library = extension_library.library()
    _graphs.add(graph)


def _before() -> None:
    global _put_off
    _put_off = gate.close()
    steps: list[Callable[[], object]] = [_stop_collecting]
    if _library is not None:
        hold_workers = partial(_library.dynamic_tinybert_hold_workers, ctypes.c_double(_PATIENCE))
        steps += [_end_idle_executors, hold_workers, _wait_until_asleep]
    _take(steps)


def _after_in_parent() -> None:
    if not gate.is_closed_here():  # done already
        return
    _take([_collect_again] if _library is None else [_collect_again, _library.dynamic_tinybert_release_workers])
    _open(gate.open, sys._getframe().f_back)


def _after_in_child() -> None:
    global _put_off
    if not gate.is_closed_here():
        return
    _put_off = None  # the parent raises it
    steps: list[Callable[[], object]] = [_abandon_graphs, _collect_again]
    if _library is not None:
        steps.insert(0, _library.dynamic_tinybert_replace_workers)
    _take(steps)
    _open(gate.open_in_child, sys._getframe().f_back)


def _open(open_gate: Callable[[], None], caller: FrameType | None) -> None:
    """The last step of a fork. `_put_off` is read before the gate opens, because another thread may then fork."""
    global _put_off
    put_off, _put_off = _put_off, None
    open_gate()
    if put_off is not None:
        _raise_after_fork(put_off, caller)


def _take(steps: list[Callable[[], object]]) -> None:
    """Complete all steps even if a signal handler raises an exception; an interrupted step is repeated."""
    global _put_off
    for step in steps:
        for _ in range(_MOST_TRIES):
            try:
                step()
                break
            except BaseException as error:
                _put_off = error


def _raise_after_fork(error: BaseException, caller: FrameType | None) -> None:
    """Raise an error in the main thread after os.fork() has returned to its caller; until then Python ignores it."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is None or threading.current_thread() is not threading.main_thread():
        raise error  # a handler that is not Python's cannot be restored; in other threads, no handler can have raised
    place = None if caller is None else caller.f_lasti
    raised = threading.Event()

    def raise_it(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, handler)
        raised.set()
        raise error

    def interrupt() -> None:
        while caller is not None and caller.f_lasti == place:
            sleep(0.001)
        # Also out of a system call. A signal just before one would only be heard after it, hence again and again.
        while not raised.is_set():
            signal.pthread_kill(main, signal.SIGINT)
            raised.wait(0.1)

    main = threading.get_ident()
    signal.signal(signal.SIGINT, raise_it)
    threading.Thread(target=interrupt, daemon=True).start()


def _stop_collecting() -> None:
    """Stop garbage collection: the child must not destroy the parent's graphs before they are abandoned."""
    global _collects
    _collects = _collects or gc.isenabled()
    gc.disable()


def _collect_again() -> None:
    global _collects
    if _collects:
        gc.enable()
    _collects = False


def _abandon_graphs() -> None:
    for graph in list(_graphs):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(graph.abandon()))


def _end_idle_executors() -> None:
    """End the executors that no graph uses, by unloading a CPU plugin, which ends all such executors of the process."""
    if not _has_cpu_plugin():
        return
    core = ov.Core()
    core.get_property("CPU", "NUM_STREAMS")  # loads the plugin
    del core


def _has_cpu_plugin() -> bool:
    """Whether OpenVINO's CPU plugin has been loaded into this process; True if Linux does not say."""
    try:
        return b"openvino_intel_cpu_plugin" in Path("/proc/self/maps").read_bytes()
    except OSError:
        return True


def _wait_until_asleep() -> None:
    """Wait until OpenVINO's threads, which still finish work after the last request, are asleep."""
    end = monotonic() + _PATIENCE
    while monotonic() < end and any(map(_is_running, _native_threads())):
        sleep(0.0002)


def _native_threads() -> list[Path]:
    python = {str(thread.native_id) for thread in threading.enumerate()}
    try:
        return [task for task in Path("/proc/self/task").iterdir() if task.name not in python]
    except OSError:  # there is no /proc
        return []


def _is_running(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "R"
    except OSError:  # it has ended
        return False


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
# A second time, because a signal during fork() may interrupt the first one before its first line.
os.register_at_fork(after_in_parent=_after_in_parent, after_in_child=_after_in_child)
