"""For which kind of device a program is being written: layers that have a form for CPUs ask here.

The default backend is no answer. A run may be told to train on the CPU of a machine with a GPU, and a program may be
written for a device that is not there, to see what it would be made of (tests/training/test_accelerator.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax

_platform: ContextVar[str | None] = ContextVar("platform", default=None)
_differentiated: ContextVar[bool] = ContextVar("differentiated", default=True)


@contextmanager
def compiled_for(platform: str) -> Iterator[None]:
    """What is traced inside is meant for this platform: 'cpu', or any other for an accelerator."""
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)


def traced_for(platform: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, meant for this platform whenever it is traced: `jax.jit` traces when it is first called."""

    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        with compiled_for(platform):
            return function(*arguments)

    return traced


@contextmanager
def never_differentiated() -> Iterator[None]:
    """What is traced inside has no gradient: layers with one of their own write out what they compute."""
    token = _differentiated.set(False)
    try:
        yield
    finally:
        _differentiated.reset(token)


def differentiated() -> bool:
    """Whether what is being traced may be differentiated."""
    return _differentiated.get()


def for_cpu() -> bool:
    """Whether what is being traced will run on a CPU; the default backend decides where nobody has said so."""
    return (_platform.get() or jax.default_backend()) == "cpu"
