"""Builds data sets: `python -m tfds_builders list`, `python -m tfds_builders build NAME --manual_dir=DIR`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from absl import logging

from fer_jax.errors import UserError
from tfds_builders import registry
from tfds_builders.manual import ManualBuilder, is_prepared
from tfds_builders.preparation import prepare, print_splits


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status: 2 after a mistake of the user, told in one line."""
    args = _parser().parse_args(argv)
    logging.set_verbosity(logging.ERROR)  # what the builders log is printed below, in order and once
    try:
        if args.command == "list":
            for name in registry.names():
                print(f"{name:20} {registry.summary(name)}")
        else:
            build(args.name, args.manual_dir, args.data_dir, args.overwrite, args.allow_counts)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def build(
    name: str,
    manual_dir: str | None = None,
    data_dir: str | None = None,
    overwrite: bool = False,
    allow_counts: bool = False,
) -> None:
    """Checks, counts and converts one data set, and prints what it found and wrote.

    Args:
      name: of the data set.
      manual_dir: folder with the original files; TFDS's own (`<data_dir>/downloads/manual`) when None.
      data_dir: where prepared data sets lie; `$TFDS_DATA_DIR` or `~/tensorflow_datasets` when None.
      overwrite: build anew what is prepared already.
      allow_counts: accept incomplete copies.

    Raises:
      UserError: for an unknown data set, and for files that are missing or wrong.
    """
    module = registry.builder_module(name.partition("/")[0])
    options: dict[str, Any] = {}
    if allow_counts:
        if not issubclass(module.Builder, ManualBuilder):
            raise UserError(f"--allow_counts does not apply to {name}, which reads no files of yours: leave it out")
        options["allow_counts"] = True
    builder = registry.make_builder(name, os.path.expanduser(data_dir) if data_dir else None, **options)
    if is_prepared(builder) and not overwrite:
        print(f"{name} {builder.version} is prepared already: {builder.data_dir}; --overwrite builds it anew")
        print_splits(builder)
        return
    prepare(builder, manual_dir, overwrite)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tfds_builders", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name every data set there is a builder for")
    one = commands.add_parser("build", help="check, count and convert a data set")
    one.add_argument("name", help="a data set that `list` names")
    one.add_argument("--manual_dir", help="the folder with the original files")
    one.add_argument("--data_dir", help="where to write (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)")
    one.add_argument("--overwrite", action="store_true", help="build anew what is there already")
    one.add_argument("--allow_counts", action="store_true", help="accept copies that are not complete")
    return parser


if __name__ == "__main__":
    sys.exit(main())
