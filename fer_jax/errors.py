"""Mistakes that a user can fix: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import contextlib
import difflib
import functools
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

FEW = 30  # names in one line


class UserError(Exception):
    """Bad input. Entry points print it as one line and exit with status 2, without a stack trace."""


class Diverged(UserError):
    """A loss or metric of training is not finite."""


def print_any_text() -> None:
    """Makes this process print what the console's encoding lacks as escapes, and nothing where a stream is closed."""
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@functools.cache
def say_once(line: str) -> None:
    """Prints a line the first time that this process says it; tables go to the standard output."""
    print(line, file=sys.stderr, flush=True)


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint for a misspelt `name`: the closest of `known`, or all of them when none is close.

    Names that begin with `name` come before all others.
    """
    known = sorted(filter(None, known))
    begun = [one for one in known if name and one.startswith(name)]
    close = difflib.get_close_matches(name, begun or known, n=1, cutoff=0 if begun else 0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {some(known) or 'none'}"


def some(names: Sequence[str], few: int = FEW, between: str = ", ") -> str:
    """Returns names in a row; of more than `few`, such as people, the first and the number of the others."""
    shown = names if len(names) <= few else [*names[:few], f"and {len(names) - few:,} more"]
    return between.join(shown)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Returns 'field: theirs -> ours' for each field in which two nested dictionaries differ, sorted by field."""
    lines = []
    for key in sorted(set(ours) | set(theirs)):
        a, b = ours.get(key), theirs.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {b!r} -> {a!r}")
    return lines


def first_line(error: BaseException) -> str:
    """Returns the type of an error and the first line of what it says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200] if text else 'no message'}"


@contextlib.contextmanager
def told(say: Callable[[BaseException], str]) -> Iterator[None]:
    """Turns whatever foreign code raises inside the `with` block, or its end, into the line that `say` returns."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(say(error)) from error


@contextlib.contextmanager
def reading(what: Any) -> Iterator[None]:
    """Turns a failure to read inside the `with` block into one line about `what`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {what}: {error.strerror or error}; check its permissions") from error


@contextlib.contextmanager
def writing(what: Any, advice: str = "make room there, or give another place") -> Iterator[None]:
    """Turns a failure to write inside the `with` block (a full disk, no permission) into one line about `what`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {what}: {error.strerror or error}; {advice}") from error
