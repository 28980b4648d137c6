"""Keeps two processes of one machine from writing the same folder at once. The lock goes with the process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from fer_jax.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked
    fcntl = None


@contextlib.contextmanager
def alone(path: Any, busy: str = "") -> Iterator[None]:
    """Holds the lock file at `path` inside the `with` block.

    Args:
        path: made where it is missing; its folder must exist. Buckets ('gs://...') have no locks.
        busy: what to say where another process holds it; empty to wait for that process.

    Raises:
        UserError: `busy`, with the number of the process that holds the lock.
    """
    if fcntl is None or "://" in str(path):
        yield
        return
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(f"{busy} (process {file.read().strip() or 'unknown'})") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
