"""Contestants in processes of their own that take turns: nobody's threads or memory stand in another's way."""

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

Build = Callable[[], Run]  # makes a turn in the contestant's process: a function of a module, or a partial of one
PATIENCE = 30.0  # seconds for a contestant to end


class Contestants(NamedTuple):
    """What takes turns.

    Attributes:
        turns: of those that work, by name.
        ready: the seconds that it took to build a contestant and to make its first turn, compilation included.
        failed: of the others, why they do not work.
    """

    turns: dict[str, Run]
    ready: dict[str, float]
    failed: dict[str, str]


@contextlib.contextmanager
def apart(builds: Mapping[str, Build], needed: Sequence[str] = ()) -> Iterator[Contestants]:
    """Starts a process for each contestant, one after the other, and ends them all on the way out.

    Args:
        builds: of the contestants, by name.
        needed: the names of those without which there is nothing to compare.

    Raises:
        RuntimeError: if one of those does not work.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads and locks in any state
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
    """What a process does: builds its turn, makes one, then one whenever it is asked to."""
    machine.prepare()
    began = time.perf_counter()
    try:
        run = build()
        jax.block_until_ready(run())
    except Exception as error:  # whatever a compiler may say: the others go on
        connection.send(first_line(error))
        return
    connection.send(time.perf_counter() - began)
    with contextlib.suppress(EOFError):  # the race is over
        while True:
            connection.recv()
            result = jax.block_until_ready(run())
            connection.send(result if isinstance(result, float) else None)


def _turn(connection: Connection, name: str) -> float | None:
    """One turn of a contestant; returns its loss, if it has one."""
    with contextlib.suppress(OSError):  # nobody is there: the answer says so
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
