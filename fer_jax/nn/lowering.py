"""Target platform of the program being traced, for layers that have a form of their own on CPUs.

The default backend does not tell: a run may train on the CPU of a machine with a GPU, and tests lower programs for
devices that are absent (tests/training/test_accelerator.py).
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
    """Sets the target platform of what is traced inside: 'cpu', or any other name for an accelerator."""
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)


def traced_for(platform: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function with this target platform whenever it is traced, which `jax.jit` does at the first call."""

    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        with compiled_for(platform):
            return function(*arguments)

    return traced


@contextmanager
def never_differentiated() -> Iterator[None]:
    """Declares that what is traced inside is never differentiated, so layers need no gradient rule of their own."""
    token = _differentiated.set(False)
    try:
        yield
    finally:
        _differentiated.reset(token)


def differentiated() -> bool:
    """Returns whether what is being traced may be differentiated."""
    return _differentiated.get()


def target() -> str:
    """Returns the platform that is traced for, by default that of the default backend; 'onnx' for a file of ONNX."""
    return _platform.get() or jax.default_backend()


def for_cpu() -> bool:
    """Returns whether what is being traced will run on a CPU."""
    return target() == "cpu"
