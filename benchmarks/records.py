"""What was measured, kept: benchmarks/results/<device>.json holds every run of `python -m benchmarks` on a device."""

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
        folder: of the files.
        sections: what was measured, by name.
        head: what `machine.describe` says.

    Raises:
        UserError: if the file is there and is none of ours: it is left as it is.
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
    """The file of a device in a folder."""
    return folder / f"{machine.file_name(device)}.json"


def check(folder: pathlib.Path, device: str = "") -> None:
    """Refuses a folder that nothing can be added to, before hours are spent on what would be added.

    Args:
        folder: made where it is missing.
        device: empty where it is not known yet: who asks JAX takes the device from the processes that measure.

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
    """Refuses a file that cannot be written, before hours are spent on what would be in it; it stays as it is.

    Args:
        path: its folder is made where it is missing.
        beside: the ending of a second file that is written beside it.
    """
    other = path.with_suffix(beside) if beside else path
    if beside and other == path:
        raise UserError(f"--out={path}: a table is written to {other.name} beside it; give another ending, .json")
    for each in (path, other):
        with writing(each):
            each.parent.mkdir(parents=True, exist_ok=True)
            if each.exists():
                with each.open("ab"):  # changes nothing, and may be a pipe
                    pass
            else:
                with tempfile.TemporaryFile(dir=each.parent):
                    pass


def write_file(path: pathlib.Path, value: Any, table: str) -> None:
    """Writes JSON, and a table as markdown beside it."""
    with writing(path):
        path.write_text(json.dumps(value, indent=1) + "\n")
        path.with_suffix(".md").write_text(table)


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Ends the process with status 2 and one line where the `with` block meets what the user can mend."""
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
    """The command of one benchmark: measures its section, prints it, and adds it to the file of the device.

    A run is stored as `quick`, and as `partial` where only some of a tuple were chosen: neither is shown on a page.

    Args:
        name: of the section.
        doc: what --help says.
        section: measures; called with `quick` and the options.
        as_table: what is printed.
        page: whether what is printed is also written beside the file, as NAME.md, for pages that include it.
        defaults: the options of the benchmark; of a tuple some are chosen, with commas between.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="folder to write into (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="as little as shows that it runs")
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


def positive(kind: type) -> Callable[[str], Any]:
    """Reads a number of a kind; refuses what is none, or not above 0."""

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
    """Reads '48,112' as (48, 112) and refuses what is not among `known`."""

    def read_values(text: str) -> tuple[Any, ...]:
        values = {str(value): value for value in known}
        for part in text.split(","):
            if part not in values:
                raise argparse.ArgumentTypeError(f"'{part}': {nearest(part, values)}")
        return tuple(values[part] for part in text.split(","))

    return read_values
