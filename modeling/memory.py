"""Reuse the memory of earlier steps."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h
_PAD = 256 << 20


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the process instead of returning it to the kernel; without glibc, do nothing.

    A training step on a CPU frees hundreds of large tensors; getting their pages again takes up to a third of its time.
    The process keeps as much memory as its largest step needed.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return
    for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _PAD)):
        mallopt(parameter, value)
