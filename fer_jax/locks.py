"""Keeps two processes from writing the same folder at once. A lock ends with its process.

A bucket has no locks: there nothing keeps a second process away.
"""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from typing import Any

from fer_jax.errors import UserError
from fer_jax.storage import in_bucket

try:
    import fcntl
except ImportError:  # Windows: nothing is locked
    fcntl = None


@contextlib.contextmanager
def alone(path: Any, busy: str = "") -> Iterator[str]:
    """Holds the lock at `path` inside the `with` block; yields a text that no other lock contains, which is in it.

    Args:
        path: created if missing; its folder must exist.
        busy: error message if another process holds the lock; empty to wait for that process.

    Raises:
        UserError: `busy`, with the process that holds the lock.
    """
    owner = f"process {os.getpid()} on {socket.gethostname()}, {uuid.uuid4().hex}"
    if in_bucket(path):
        path.write_text(owner)
        yield owner
        return
    # A link in place of the lock is refused: the file it points to would be emptied.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(path, flags, 0o666), "r+") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().partition(",")[0] or "unknown process"
                raise UserError(f"{busy} ({holder})") from error
        file.seek(0)
        file.truncate()
        file.write(owner)
        file.flush()
        yield owner
