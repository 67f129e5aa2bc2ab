"""Freed memory is kept for the next array.

Training asks for the same large arrays again in every step. The C library by default returns them to the
kernel in between, and each page of a fresh one costs a fault: a third of the time of a small network's step.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc accepts no more; larger arrays still come fresh


def keep_freed_memory() -> None:
    """Let glibc keep up to 2 GiB of freed memory for this process; does nothing with another C library."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
