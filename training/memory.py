"""Memory of the steps before is kept for those to come."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h
_PAD = 256 << 20


def keep_freed_memory() -> None:
    """Let glibc, where it is the C library, hand freed memory out again instead of back to the kernel.

    A step on a CPU frees hundreds of large tensors; taking their pages anew costs up to a third of its time. The
    process keeps what its largest step needed.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl
        return
    for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _PAD)):
        mallopt(parameter, value)
