"""Memory that XLA's CPU backend frees stays with the process, in huge pages, instead of going back at every step."""

from __future__ import annotations

import ctypes
import mmap
import os
import pathlib
import sys

# Names and numbers of glibc's malloc.h, and of Linux's mman.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
MADV_HUGEPAGE = 14

NEVER = -1  # as the threshold above which freed memory is returned
SMALL_PAGES = 4096  # huge ones have 2 MB then; where small ones have 64 KB, huge ones have 512 MB, too many
STRICT = "2"  # what the system says when it counts memory at the moment it is asked for, not when it is used


def keep_freed_memory() -> bool:
    """Tells glibc not to return large buffers to the system; call it before the first computation.

    Every step allocates its temporary buffers anew, hundreds of megabytes. By default glibc maps each large one
    afresh, and the kernel then clears every page of it again: a tenth of the step's time (docs/performance.md).
    In pages of 2 MB, where the system has them, a step's time also varies far less.

    Returns:
        Whether the C library took the settings (False outside Linux with glibc, where nothing changes).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    settings = ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, 64 << 20))
    kept = all([mallopt(name, value) for name, value in settings])
    if kept and mmap.PAGESIZE == SMALL_PAGES and not _strict():
        _prefer_huge_pages(libc, mmap.PAGESIZE * os.sysconf("SC_PHYS_PAGES") // 2)
    return kept


def _prefer_huge_pages(libc: ctypes.CDLL, size: int) -> None:
    """Grows the heap by `size` bytes of addresses and asks for huge pages there: memory is taken when it is used."""
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = (ctypes.c_size_t,)
    libc.free.argtypes = (ctypes.c_void_p,)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    block = libc.malloc(size)
    if block is None:  # a limit on addresses: pages stay as they are
        return
    start = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
    libc.madvise(start, (block + size - start) // mmap.PAGESIZE * mmap.PAGESIZE, MADV_HUGEPAGE)
    libc.free(block)  # what is allocated from now on lies there, because the heap does not shrink any more


def _strict() -> bool:
    try:
        return pathlib.Path("/proc/sys/vm/overcommit_memory").read_text().strip() == STRICT
    except OSError:
        return False
