"""Builds data sets: `python -m tfds_builders list`, `python -m tfds_builders build NAME --manual_dir=DIR`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from fer_jax.errors import UserError
from tfds_builders import registry
from tfds_builders.manual import ManualBuilder, is_prepared
from tfds_builders.picture_builder import PictureBuilder
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
            build(
                args.name,
                args.manual_dir,
                args.data_dir,
                overwrite=args.overwrite,
                allow_counts=args.allow_counts,
                allow_missing=args.allow_missing,
                jobs=args.jobs,
                options=parse_options(args.option),
            )
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
    *,
    overwrite: bool = False,
    allow_counts: bool = False,
    allow_missing: int = 0,
    jobs: int = 0,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Checks, counts and converts one data set, and prints what it found and wrote.

    Args:
      name: of the data set, with a variant where it has several: 'rafdb/compound'.
      manual_dir: folder with the original files; TFDS's own (`<data_dir>/downloads/manual`) when None.
      data_dir: where prepared data sets lie; `$TFDS_DATA_DIR` or `~/tensorflow_datasets` when None.
      overwrite: build anew what is prepared already.
      allow_counts: accept incomplete copies.
      allow_missing: accept so many examples whose files are missing or damaged.
      jobs: processes; 0 is one for each core.
      options: of the builder, such as {'size': 112}.

    Raises:
      UserError: for an unknown data set, and for files that are missing or wrong.
    """
    module = registry.builder_module(name.partition("/")[0])
    given = dict(options or {})
    if allow_counts:
        if not issubclass(module.Builder, ManualBuilder):
            raise UserError(f"--allow_counts does not apply to {name}, which reads no files of yours: leave it out")
        given["allow_counts"] = True
    if allow_missing:
        if not issubclass(module.Builder, PictureBuilder):
            raise UserError(f"--allow_missing does not apply to {name}: leave it out")
        given["allow_missing"] = allow_missing
    if given and not hasattr(module, "make_builder") and set(given) != {"allow_counts"}:
        raise UserError(f"{name} has no options: leave out --option={next(iter(given))}")
    builder = registry.make_builder(name, os.path.expanduser(data_dir) if data_dir else None, **given)
    if isinstance(builder, PictureBuilder):
        builder.jobs = jobs
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
    one.add_argument("--allow_missing", type=int, default=0, metavar="N", help="accept N missing or damaged files")
    one.add_argument("--jobs", type=int, default=0, help="processes (default: one for each core)")
    one.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the data set; see its README"
    )
    return parser


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Returns the options of `--option=KEY=VALUE`: numbers, true and false as such, the rest as text."""
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise UserError(f"--option={pair}: write --option=KEY=VALUE, such as --option=size=112")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


if __name__ == "__main__":
    sys.exit(main())
