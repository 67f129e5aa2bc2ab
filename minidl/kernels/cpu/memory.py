"""Freed memory is kept for the next array.

Training asks for the same large arrays again in every step. The C library by default returns them to the
kernel in between, and each page of a fresh one costs a fault: a third of the time of a small network's step.
"""

from __future__ import annotations

import ctypes
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


@cache
def keep_freed_memory() -> None:
    """Let glibc keep up to 2 GiB of freed memory for this process; does nothing with another C library.

    The kernels ask for it when they first run: a program that only imports minidl keeps its own settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_MMAP_MAX, 0)  # what comes by a mapping of its own goes back when it is freed
