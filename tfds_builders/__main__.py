"""Data sets: `python -m tfds_builders list`, `build NAME --manual_dir=DIR`, `verify|show|landmarks NAME`."""

from __future__ import annotations

import signal

if __name__ == "__main__":  # Ctrl-C while libraries load ends without a stack trace
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import logging

from fer_jax.errors import UserError, print_any_text, writing
from fer_jax.faces.landmarks import LICENSE
from fer_jax.parsing import parse_json
from fer_jax.storage import local
from tfds_builders import registry
from tfds_builders.catalogue import CATALOGUE
from tfds_builders.contact_sheet import contact_sheet
from tfds_builders.landmarks import find_landmarks
from tfds_builders.listing import told
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.preparation import discard_unfinished, prepare, print_splits
from tfds_builders.prepared import is_prepared
from tfds_builders.verify import verify


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status; 2 for bad input, which is reported in one line."""
    print_any_text()
    args = _parser().parse_args(argv)
    if argv is None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.set_verbosity(logging.ERROR)  # what the builders log is printed at the end, once
    try:
        status = COMMANDS[args.command](args)
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return 130


def list_all(args: argparse.Namespace) -> int:
    """Prints a line for each data set, with its prepared variants and versions."""
    rows = [("name", "examples", "classes", "published sizes", "license", "prepared")]
    for name in registry.names():
        there = ", ".join(registry.prepared(name, args.data_dir)) or "no"
        rows.append((name, *CATALOGUE[name], there))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def verify_one(args: argparse.Namespace) -> int:
    """Prints what is in a prepared data set; returns 1 if something is wrong."""
    builder = _builder(args)
    findings = verify(builder)
    print(f"{builder.info.full_name} in {builder.data_path}")
    for split, counts in findings.numbers["counts"].items():
        print(f"  {split:13}{builder.info.splits[split].num_examples:7,}  {told(counts)}")
    print(f"decoded all {findings.numbers['pictures']:,} pictures")
    for note in findings.notes:
        print(f"note: {note}")
    for line in findings.wrong:
        print(f"wrong: {line}")
    if args.out:
        with writing(args.out, "give another file with --out"):
            pathlib.Path(args.out).write_text(json.dumps(findings.numbers | {"notes": findings.notes}, indent=1) + "\n")
    return 1 if findings.wrong else 0


def show_one(args: argparse.Namespace) -> int:
    """Draws a contact sheet of a prepared data set."""
    if args.seed < 0:
        raise UserError(f"--seed={args.seed} is below 0: give 0 or more")
    builder = _builder(args)
    sheet = contact_sheet(builder, args.split, args.seed)
    path = pathlib.Path(args.out or f"{args.name.replace('/', '_')}.png")
    with writing(path, "give another file with --out"):
        sheet.save(path, "PNG")
    print(f"wrote {path}")
    return 0


def landmarks_one(args: argparse.Namespace) -> int:
    """Finds 68 landmarks in every picture of a prepared data set."""
    find_landmarks(_builder(args), args.yunet)
    return 0


def build_one(args: argparse.Namespace) -> int:
    """Checks, counts and converts one data set, and prints what it found and wrote."""
    for flag, number in (("--allow_missing", args.allow_missing), ("--jobs", args.jobs)):
        if number < 0:
            raise UserError(f"{flag}={number} is below 0: give 0 or more")
    reads_files = issubclass(registry.builder_module(args.name.partition("/")[0]).Builder, PictureBuilder)
    allowed = {name: value for name in ("allow_counts", "allow_missing") if (value := getattr(args, name))}
    if allowed and not reads_files:
        raise UserError(
            f"--{next(iter(allowed))} does not apply to {args.name}, which reads no files of yours: leave it out"
        )
    builder = _builder(args, **allowed)
    if reads_files:
        builder.jobs = args.jobs
    if not is_prepared(builder) or args.overwrite:
        prepare(builder, args.manual_dir, args.overwrite)
        return 0
    prepared = (builder.info.metadata or {}).get("options", {})
    for option, value in parse_options(args.option).items():
        if prepared.get(option, value) != value:
            raise UserError(
                f"{args.name} is prepared with {option}={prepared[option]}, not {value}: build it again with "
                "--overwrite"
            )
    print(f"{args.name} {builder.version} is already prepared: {builder.data_dir}; --overwrite builds it again")
    print_splits(builder)
    discard_unfinished(builder)
    return 0


FLAGS = {  # flags of the command line that are not options of a data set
    **{name: f"--{name}" for name in ("allow_counts", "allow_missing", "data_dir", "manual_dir", "jobs", "overwrite")},
    **dict.fromkeys(("variant", "config"), "the variant after the name, as in rafdb/compound,"),
}
COMMANDS = {"list": list_all, "build": build_one, "verify": verify_one, "show": show_one, "landmarks": landmarks_one}


def _builder(args: argparse.Namespace, **allowed: Any) -> Any:
    """The builder that a command names."""
    data_dir = local(args.data_dir, "--data_dir") if args.data_dir else None
    return registry.make_builder(args.name, data_dir, **parse_options(args.option), **allowed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tfds_builders", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    every = commands.add_parser("list", help="list every data set that can be built")
    one = commands.add_parser("build", help="check, count and convert a data set")
    look = commands.add_parser("verify", help="check a prepared data set: counts, every picture, duplicates")
    show = commands.add_parser("show", help="draw a contact sheet of a prepared data set")
    marks = commands.add_parser(
        "landmarks", help="find 68 landmarks in every picture of a data set, for config.data.points", epilog=LICENSE
    )
    for command in (one, look, show, marks):
        command.add_argument("name", help="a data set that `list` shows, with its variant if any: rafdb/compound")
        command.add_argument(
            "--option", action="append", default=[], metavar="KEY=VALUE", help="option of the data set; see its README"
        )
    for command in (every, one, look, show, marks):
        text = "folder of prepared data sets (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)"
        command.add_argument("--data_dir", help=text)
    one.add_argument("--manual_dir", help="the folder with the original files")
    one.add_argument("--overwrite", action="store_true", help="rebuild a data set that is already prepared")
    one.add_argument(
        "--allow_counts", action="store_true", help="accept numbers of examples that differ from the published ones"
    )
    one.add_argument("--allow_missing", type=int, default=0, metavar="N", help="accept N missing or damaged files")
    one.add_argument("--jobs", type=int, default=0, help="number of processes (default: one per core)")
    look.add_argument("--out", type=os.path.expanduser, help="write the numbers as JSON")
    marks.add_argument(
        "--yunet", type=os.path.expanduser, help="file of YuNet, the face detector (default: fetched once)"
    )
    show.add_argument("--split", default="", help="split to show (default: the first)")
    show.add_argument("--seed", type=int, default=0, help="seed that draws the examples (default %(default)s)")
    show.add_argument("--out", type=os.path.expanduser, help="PNG file to write (default: NAME.png)")
    return parser


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Returns the options of `--option=KEY=VALUE`: numbers, true and false as such, the rest as text."""
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise UserError(f"--option={pair}: write --option=KEY=VALUE, such as --option=size=112")
        if key in FLAGS:
            raise UserError(f"--option={pair}: give {FLAGS[key]} instead")
        try:
            options[key] = parse_json(value)
        except ValueError:
            options[key] = value
    return options


if __name__ == "__main__":
    sys.exit(main())
