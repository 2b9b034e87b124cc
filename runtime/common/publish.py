"""Write a folder atomically: it appears complete or not at all, however the writing process ends."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Never

from safetensors import SafetensorError

from .errors import BundleExistsError, StorageError

BUNDLE_MARK = "dynamic_tinybert.json"
"""The file that makes a folder a bundle: its manifest, which is written last."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def publishing(target: Path, *, force: bool = False, mark: str = BUNDLE_MARK, kind: str = "a bundle") -> Iterator[Path]:
    """Yield a new folder beside `target` that replaces `target` at the end, and is removed on any exception.

    SIGTERM counts as an exception (SystemExit 143) where it would have ended the process, and neither it nor
    SIGINT interrupts the clean-up, unless the application has handlers of its own. The next call with the same
    `target` removes what a killed process left behind, and restores the old folder if the process was killed
    while it replaced `target`.

    Args:
        target: The final path of the folder; missing parents are created.
        force: Replace an existing folder of this kind, or an empty one. The old one stays intact until the new one is
            complete.
        mark: The file that makes a folder one of this kind.
        kind: What the folder is, for messages.

    Raises:
        BundleExistsError: `target` exists, and `force` is not set or it is of another kind. Raised before anything is
            written, or at the end if `target` has appeared in the meantime.
        StorageError: The folder could not be made, the disk is full, or `target` is a mount point.
    """
    with _signals_unwind() as ignore_signals, ExitStack() as cleanup:
        with writing(target):
            target = target.resolve()
            cleanup.callback(_remove_empty, [parent for parent in target.parents if not parent.exists()])
            target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(target.parent):
                _clear_leftovers(target)
                _refuse_taken(target, force, mark, kind)
                partial = _beside(target, "partial")
                cleanup.callback(shutil.rmtree, partial, ignore_errors=True)
                cleanup.callback(ignore_signals)  # callbacks run in reverse order
                partial.mkdir()
                cleanup.enter_context(_locked(partial))
        try:
            yield partial
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise _storage_error(Path(error.filename or target), error) from error
            raise
        with writing(target):
            for path in (*partial.rglob("*"), partial):
                sync(path)
            with _locked(target.parent):
                _refuse_taken(target, force, mark, kind)
                _put_in_place(partial, target)
                sync(target.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn any error of OpenVINO, safetensors or Python while `path` is written into a StorageError.

    OpenVINO raises a bare RuntimeError and safetensors an error of its own when the disk is full.
    """
    try:
        yield
    except StorageError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        raise _storage_error(path, error) from error


def _storage_error(path: Path, error: Exception) -> StorageError:
    free = ""
    for parent in path.absolute().parents:
        with suppress(OSError):  # the nearest existing one
            free = f" ({shutil.disk_usage(parent).free / 1e6:.1f} MB free in {parent})"
            break
    return StorageError(f"cannot write {path}: {error}{free}; make room or write elsewhere")


def _refuse_taken(target: Path, force: bool, mark: str, kind: str) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise BundleExistsError(f"{target} is a file, but {kind} is a folder; give another path")
    if target.is_mount():
        raise StorageError(f"{target} is a mount point, which cannot be replaced; give a folder inside it")
    if not force:
        raise BundleExistsError(f"{target} exists already; give another path, or replace it with --force")
    if not (target / mark).exists() and any(target.iterdir()):
        raise BundleExistsError(
            f"{target} has files but no {mark}: it is not {kind}, so it is not replaced; give another path"
        )


def _beside(target: Path, state: str) -> Path:
    return target.with_name(f".{target.name}.{state}-{secrets.token_hex(4)}")


def _left_beside(target: Path, state: str) -> Iterator[Path]:
    return target.parent.glob(f".{glob.escape(target.name)}.{state}-" + "[0-9a-f]" * 8)


def _clear_leftovers(target: Path) -> None:
    for partial in _left_beside(target, "partial"):
        if not _in_use(partial):
            shutil.rmtree(partial, ignore_errors=True)
    _settle_replaced(target)


def _put_in_place(partial: Path, target: Path) -> None:
    try:
        if target.exists():
            target.rename(_beside(target, "replaced"))
        partial.rename(target)
    finally:
        _settle_replaced(target)


def _settle_replaced(target: Path) -> None:
    """Remove what `target` replaced; if nothing took its place, bring it back."""
    for old in _left_beside(target, "replaced"):
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)


# A process holds the lock of its partial folder as long as it lives. The kernel releases the lock when the process
# ends, even by SIGKILL, and other containers see it, where a process id would mean nothing. The lock of the parent
# is held only while folders are made, renamed or cleared. Where a file system has no locks, leftovers stay.
@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with _opened(folder) as descriptor:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _in_use(folder: Path) -> bool:
    try:
        with _opened(folder) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def sync(path: Path) -> None:
    """Wait until what was written to a file, or the entries of a folder, are on disk."""
    with _opened(path) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _signals_unwind() -> Iterator[Callable[[], None]]:
    """Make SIGTERM raise an exception, as SIGINT does; yield a function that makes the process ignore both."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = {  # only signals that the application leaves alone, and only in the main thread, as Python requires
        signum: default
        for signum, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL))
        if in_main_thread and signal.getsignal(signum) is default
    }

    def ignore() -> None:
        for signum in ours:
            signal.signal(signum, signal.SIG_IGN)

    if signal.SIGTERM in ours:
        signal.signal(signal.SIGTERM, _exit)
    try:
        yield ignore
    finally:
        for signum, default in ours.items():
            signal.signal(signum, default)


def _exit(signum: int, frame: FrameType | None) -> Never:
    raise SystemExit(128 + signum)
