"""Keeps two processes from writing the same folder at once. A lock ends with its process.

On a file system the lock is a locked file. A bucket has no locks: there an object names the process that holds it,
and changes every few seconds for as long as that process lives.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from fer_jax.errors import UserError
from fer_jax.storage import in_bucket

try:
    import fcntl
except ImportError:  # Windows: nothing is locked
    fcntl = None

BEAT = 15.0  # seconds between two writes of a lock in a bucket
SETTLE = 2.0  # seconds until a lock in a bucket is seen by a process that starts at the same time


@contextlib.contextmanager
def alone(path: Any, busy: str = "") -> Iterator[str]:
    """Holds the lock at `path` inside the `with` block; yields a text that no other lock contains.

    Args:
        path: created if missing; its folder must exist.
        busy: error message if another process holds the lock; empty to wait for that process.

    Raises:
        UserError: `busy`, with the process that holds the lock.
    """
    owner = f"process {os.getpid()} on {socket.gethostname()}, {uuid.uuid4().hex}"
    with _object_lock(path, owner, busy) if in_bucket(path) else _file_lock(path, owner, busy):
        yield owner


@contextlib.contextmanager
def _file_lock(path: Any, owner: str, busy: str) -> Iterator[None]:
    with open(path, "a+") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            except BlockingIOError as error:
                file.seek(0)
                raise UserError(f"{busy} ({_holder(file.read())})") from error
        file.truncate(0)
        file.write(owner)
        file.flush()
        yield


@contextlib.contextmanager
def _object_lock(path: Any, owner: str, busy: str) -> Iterator[None]:
    """The same in a bucket: an object that still changes belongs to a process that lives."""
    over, beats = threading.Event(), itertools.count()

    def write() -> None:
        path.write_text(f"{owner}, {next(beats)}")

    while not (there := _read(path)).startswith(owner):
        if there:
            time.sleep(2.5 * BEAT)
        if not there or _read(path) == there:  # free, or of a process that is gone
            write()
            time.sleep(SETTLE)  # of two that start at once, the one that wrote last continues
        holder = _read(path)
        if busy and holder and not holder.startswith(owner):
            raise UserError(f"{busy} ({_holder(holder)})")

    def keep() -> None:
        while not over.wait(BEAT):
            with contextlib.suppress(Exception):  # the next write makes up for one that fails
                write()

    keeper = threading.Thread(target=keep, name="keeps the lock", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        with contextlib.suppress(OSError):
            path.unlink()


def _holder(text: str) -> str:
    return text.partition(",")[0] or "unknown process"


def _read(path: Any) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
