"""Records of benchmarks: benchmarks/results/<device>.json holds every run of `python -m benchmarks` on a device."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks import machine
from fer_jax.errors import UserError, first_line, nearest, writing

RESULTS = pathlib.Path(__file__).parent / "results"


def append(folder: pathlib.Path, sections: Mapping[str, Any], head: Mapping[str, Any]) -> pathlib.Path:
    """Adds a run to the file of its device and returns the file.

    Args:
        folder: of the records.
        sections: results by name.
        head: `machine.describe()`.

    Raises:
        UserError: if the file holds something else; it is left unchanged.
    """
    path = file_of(folder, head["device"])
    stored = read(path) if path.exists() else {"device": head["device"], "runs": []}
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    facts = {name: value for name, value in head.items() if name != "device"}
    stored["runs"].append({"when": when, **facts, "sections": dict(sections)})
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(stored, indent=1) + "\n")
        os.replace(partial, path)  # whole or not at all
    return path


def file_of(folder: pathlib.Path, device: str) -> pathlib.Path:
    """Returns the file of a device in a folder."""
    return folder / f"{machine.file_name(device)}.json"


def check(folder: pathlib.Path, device: str = "") -> None:
    """Raises if nothing can be added to a folder, before hours of measuring.

    Args:
        folder: created if missing.
        device: empty if not known yet, because asking JAX takes the device from the processes that measure.

    Raises:
        UserError: if it cannot be written, or its file of the device is damaged.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    if device and (path := file_of(folder, device)).exists():
        read(path)


def check_file(path: pathlib.Path, beside: str = "") -> None:
    """Raises if a file cannot be written, before hours of measuring; the file stays unchanged.

    Args:
        path: its folder is created if missing.
        beside: suffix of a second file that is written beside it.
    """
    other = path.with_suffix(beside) if beside else path
    if beside and other == path:
        raise UserError(f"--out={path}: a table is written to {other.name} beside it; give another suffix, .json")
    for each in (path, other):
        with writing(each):
            each.parent.mkdir(parents=True, exist_ok=True)
            if each.exists():
                with each.open("ab"):  # changes nothing
                    pass
            else:
                with tempfile.TemporaryFile(dir=each.parent):
                    pass


def write_file(path: pathlib.Path, value: Any, table: str) -> None:
    """Writes JSON, and a Markdown table beside it."""
    with writing(path):
        path.write_text(json.dumps(value, indent=1) + "\n")
        path.with_suffix(".md").write_text(table)


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Turns a UserError inside the `with` block into one line and exit status 2."""
    try:
        yield
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)


@contextlib.contextmanager
def readable(what: Any) -> Iterator[None]:
    """Turns errors from damaged records inside the `with` block into one line that names them."""
    try:
        yield
    except (OSError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{what} is damaged ({first_line(error)}): fix it, or move it away and run again") from error


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns {'device', 'runs'} of a file; raises UserError if it holds something else."""
    with readable(path):
        stored = json.loads(path.read_text())
    if not (isinstance(stored, dict) and isinstance(stored.get("runs"), list) and "device" in stored):
        raise UserError(f"{path} holds no runs of python -m benchmarks: move it away and run again")
    return stored


def command_line(
    name: str,
    doc: str | None,
    section: Callable[..., Any],
    as_table: Callable[[Any], str],
    page: bool = False,
    **defaults: Any,
) -> None:
    """The command of one benchmark: runs its section, prints the table, and adds the result to the device's file.

    A run with only some values of a tuple is stored as `partial`; neither it nor a `quick` one is shown on a page.

    Args:
        name: of the section.
        doc: text of --help.
        section: called with `quick` and the options; returns the result.
        as_table: from a result to the printed table.
        page: whether the table is also written to NAME.md, for pages that include it.
        defaults: options of the benchmark; a tuple is given as its chosen values, separated by commas.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=user_path, default=RESULTS, help="folder to write into (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="just enough to show that it runs")
    for option, value in defaults.items():
        if isinstance(value, tuple):
            parser.add_argument(f"--{option}", type=several(value), default=value, help="(default %(default)s)")
        else:
            parser.add_argument(f"--{option}", type=positive(type(value)), default=value, help="(default %(default)s)")
    args = vars(parser.parse_args())
    out = args.pop("out")
    partial = any(isinstance(value, tuple) and set(args[option]) != set(value) for option, value in defaults.items())
    machine.prepare()
    with one_line():
        check(out)
        result = section(**args)
        table = as_table(result)
        print(table)
        print(append(out, {name: result}, machine.describe() | {"quick": args["quick"], "partial": partial}))
        if page and not (args["quick"] or partial):
            with writing(out / f"{name}.md"):
                (out / f"{name}.md").write_text(table)


def user_path(text: str) -> pathlib.Path:
    """Returns the path that an option gives; the shell does not expand the ~ of --out=~/x."""
    return pathlib.Path(text).expanduser()


def positive(kind: type) -> Callable[[str], Any]:
    """Returns a parser of positive numbers of a kind."""

    def read_value(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"'{text}': give a number above 0")
        return value

    return read_value


def several(known: tuple[Any, ...]) -> Callable[[str], tuple[Any, ...]]:
    """Returns a parser of '48,112' into (48, 112), with values from `known` only."""

    def read_values(text: str) -> tuple[Any, ...]:
        values = {str(value): value for value in known}
        for part in text.split(","):
            if part not in values:
                raise argparse.ArgumentTypeError(f"'{part}': {nearest(part, values)}")
        return tuple(values[part] for part in text.split(","))

    return read_values
