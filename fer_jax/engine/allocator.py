"""Keeps memory that XLA's CPU backend frees in the process, in huge pages, instead of returning it at every step."""

from __future__ import annotations

import ctypes
import mmap
import os
import pathlib
import sys

# Names and numbers of glibc's malloc.h, and of Linux's mman.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
MADV_HUGEPAGE = 14

NEVER = -1  # threshold above which freed memory is returned
SMALL_PAGES = 4096  # bytes; then huge pages have 2 MB. With pages of 64 KB they have 512 MB, which is too much
STRICT = "2"  # value of overcommit_memory if memory counts when it is requested, not when it is used


def keep_freed_memory() -> bool:
    """Tells glibc not to return large buffers to the system. To be called before the first computation.

    Every step allocates hundreds of megabytes of temporary buffers. By default glibc maps each large one again, and
    the kernel clears its pages: a tenth of the time of a step (docs/performance.md). With pages of 2 MB, the time of
    a step also varies far less.

    Returns:
        Whether glibc accepted the settings; False without glibc, where nothing changes.
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
    """Grows the heap by `size` bytes of addresses and asks for huge pages there; only used ones take memory."""
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = (ctypes.c_size_t,)
    libc.free.argtypes = (ctypes.c_void_p,)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    block = libc.malloc(size)
    if block is None:  # a limit on address space: pages stay small
        return
    start = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
    libc.madvise(start, (block + size - start) // mmap.PAGESIZE * mmap.PAGESIZE, MADV_HUGEPAGE)
    libc.free(block)  # the heap does not shrink any more, so later buffers lie there


def _strict() -> bool:
    try:
        return pathlib.Path("/proc/sys/vm/overcommit_memory").read_text().strip() == STRICT
    except OSError:
        return False
