"""Contestants that take turns, each in a process of its own, so that they share neither threads nor memory."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import jax

from benchmarks import machine
from benchmarks.turns import Run
from fer_jax.errors import first_line

Build = Callable[[], Run]  # called in the contestant's process: a module-level function, or a partial of one
PATIENCE = 30.0  # seconds for a contestant to end


class Contestants(NamedTuple):
    """Contestants that are ready to take turns.

    Attributes:
        turns: by name, of those that work.
        ready: seconds to build a contestant and make its first turn, compilation included.
        failed: by name, the reason why a contestant does not work.
    """

    turns: dict[str, Run]
    ready: dict[str, float]
    failed: dict[str, str]


@contextlib.contextmanager
def apart(builds: Mapping[str, Build], needed: Sequence[str] = ()) -> Iterator[Contestants]:
    """Starts a process for each contestant, one after the other, and ends them all on exit.

    Args:
        builds: by name of the contestant.
        needed: names without which there is nothing to compare.

    Raises:
        RuntimeError: if one of `needed` does not work.
    """
    context = multiprocessing.get_context("spawn")  # a fork inherits threads and locks in an unknown state
    found = Contestants({}, {}, {})
    with contextlib.ExitStack() as ends:
        for name, build in builds.items():
            here, there = context.Pipe()
            process = context.Process(target=_contestant, args=(there, build), daemon=True)
            process.start()
            there.close()
            ends.callback(_end, process, here)
            seconds = _answer(here, name)
            if isinstance(seconds, str):
                if name in needed:
                    raise RuntimeError(f"{name}: {seconds}")
                found.failed[name] = seconds
            else:
                found.ready[name] = round(seconds, 1)
                found.turns[name] = functools.partial(_turn, here, name)
        yield found


def _contestant(connection: Connection, build: Build) -> None:
    """Runs in the process: builds the turn, makes one, then one per message."""
    machine.prepare()
    began = time.perf_counter()
    try:
        run = build()
        jax.block_until_ready(run())
    except Exception as error:  # compilers raise anything; the others continue
        connection.send(first_line(error))
        return
    connection.send(time.perf_counter() - began)
    with contextlib.suppress(EOFError):  # the parent has closed the connection
        while True:
            connection.recv()
            result = jax.block_until_ready(run())
            connection.send(result if isinstance(result, float) else None)


def _turn(connection: Connection, name: str) -> float | None:
    """Makes one turn of a contestant; returns its loss, if it has one."""
    with contextlib.suppress(OSError):  # _answer reports a process that has ended
        connection.send(None)
    result = _answer(connection, name)
    if isinstance(result, str):
        raise RuntimeError(f"{name}: {result}")
    return result


def _answer(connection: Connection, name: str) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError):
        return f"the process of {name} has ended: out of memory?"


def _end(process: Any, connection: Connection) -> None:
    connection.close()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
