"""Memory that XLA's CPU backend frees stays with the process, instead of going back to the system at every step."""

from __future__ import annotations

import ctypes
import sys

# Names and numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc not to return large buffers to the system; call it before the first computation.

    Every step allocates its temporary buffers anew, hundreds of megabytes. By default glibc maps each large one
    afresh, and the kernel then clears every page of it again: a tenth of the step's time (docs/performance.md).

    Returns:
        Whether the C library took the settings (False outside Linux with glibc, where nothing changes).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 << 20))
    return all([mallopt(name, value) for name, value in settings])
