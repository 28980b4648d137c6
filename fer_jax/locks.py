"""Keeps two processes from writing the same folder at once. The lock goes with the process.

A file system has locks. A bucket has none: there a small object says who is at work, and changes every few seconds as
long as that process lives.
"""

from __future__ import annotations

import contextlib
import json
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

BEAT = 15.0  # seconds between signs of life in a bucket
SETTLE = 2.0  # seconds for two that begin at once to see each other


@contextlib.contextmanager
def alone(path: Any, busy: str = "") -> Iterator[None]:
    """Holds the lock file at `path` inside the `with` block.

    Args:
        path: made where it is missing; its folder must exist.
        busy: what to say where another process holds it; empty to wait for that process.

    Raises:
        UserError: `busy`, with the number of the process that holds the lock.
    """
    if in_bucket(path):
        with _alone_in_bucket(path, busy):
            yield
        return
    if fcntl is None:
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


@contextlib.contextmanager
def _alone_in_bucket(path: Any, busy: str) -> Iterator[None]:
    """The same where nothing can be locked: who finds a sign of life waits to see whether there comes another."""
    me = {"run": uuid.uuid4().hex, "host": socket.gethostname(), "process": os.getpid()}

    def write(beat: int) -> None:
        path.write_text(json.dumps(me | {"beat": beat}))

    def refuse(other: dict[str, Any]) -> None:
        if other and busy:
            raise UserError(f"{busy} (process {other.get('process')} on {other.get('host')})")

    def is_mine() -> bool:
        return _read(path).get("run", me["run"]) == me["run"]

    holder: dict[str, Any] = {}
    while holder.get("run") != me["run"]:  # of two that begin at once, one goes back to waiting
        refuse(holder)
        while before := _read(path):
            time.sleep(2.5 * BEAT)
            now = _read(path)
            if now == before:  # its process is gone
                break
            refuse(now)
        write(0)
        time.sleep(SETTLE)
        holder = _read(path)
    over = threading.Event()

    def live() -> None:
        beat = 0
        while not over.wait(BEAT):
            beat += 1
            with contextlib.suppress(Exception):  # a write that fails is made up for by the next
                if not is_mine():  # this process was suspended for so long that another took over
                    return
                write(beat)

    keeper = threading.Thread(target=live, name="keeps the lock", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        with contextlib.suppress(OSError):
            if is_mine():
                path.unlink()


def _read(path: Any) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
