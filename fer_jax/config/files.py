"""Experiment files: finds and reads them, and applies the config overrides of the command line."""

from __future__ import annotations

import pathlib
import re
import runpy
import sys
import traceback
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import ml_collections

import fer_jax
from fer_jax.config.fields import Config, assign, leaves, nearest_field
from fer_jax.config.table import KINDS
from fer_jax.errors import UserError, first_line, nearest, told
from fer_jax.parsing import LARGEST_INTEGER, literal, number, whole_number

PACKAGE = pathlib.Path(fer_jax.__file__).parent
INSTALLED = (PACKAGE / "bundled", PACKAGE.parent)  # folders that hold experiments/ in an installation and in a clone
SHOWN = 80  # characters of a value
BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def load_config(name: str) -> Config:
    """Returns the config of FILE.py or FILE.py:VARIANT; looks in the current folder, then in the installation.

    Raises:
        UserError: if there is no such file or variant, or the file has no `get_config` or fails to run.
    """
    path, _, variant = name.partition(":")
    file = _find(path)
    module = read_experiment(file)
    if "get_config" not in module:
        raise UserError(f"--config: {path} is not an experiment: it defines no get_config function")
    with _running(file):
        config = module["get_config"](variant) if variant else module["get_config"]()
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"--config: {path}: get_config does not return a config: return fields.variant_config(...)")
    return config


def read_experiment(path: pathlib.Path) -> dict[str, Any]:
    """Runs an experiment file and returns what it defines; it may import other files of experiments/."""
    for folder in (str(pathlib.Path.cwd()), *map(str, INSTALLED)):
        if folder not in sys.path:
            sys.path.append(folder)
    with _running(path):
        return runpy.run_path(str(path))


def _running(path: pathlib.Path) -> AbstractContextManager[None]:
    """Turns an exception or exit in an experiment file into one line that names the file and line."""

    def say(error: BaseException) -> str:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        return f"--config: {where}: {first_line(error)}"

    return told(say)


def experiments() -> list[str]:
    """Returns the experiments in the current folder and in the installation, such as 'experiments/fdrl.py'."""
    folders = [folder / "experiments" for folder in (pathlib.Path.cwd(), *INSTALLED)]
    files = {path.name for folder in folders for path in folder.glob("*.py") if b"def get_config" in path.read_bytes()}
    return [f"experiments/{name}" for name in sorted(files)]


def describe_experiment(name: str) -> tuple[str, str]:
    """Returns the first line of an experiment's docstring, and its variants, the default one first."""
    module = read_experiment(_find(name))
    default, *_ = module["get_config"].__defaults__ or ("",)
    others = [variant for variant in module.get("VARIANTS", ()) if variant != default]
    return (module["__doc__"] or "").strip().partition("\n")[0], ", ".join([f"{default} (default)", *others])


def _find(path: str) -> pathlib.Path:
    for folder in (pathlib.Path.cwd(), *INSTALLED):
        if (folder / path).is_file():
            return folder / path
    raise UserError(f"--config: there is no file {path}; {nearest(path, experiments())}")


def override(config: Config, changes: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Sets fields of `config` from (dotted path, text) pairs, and returns their values by path.

    Builder options of the experiment's data set are dropped where another builder's data set takes its place.
    """
    values, before = parse(changes, dict(leaves(config, ()))), config.data.dataset
    for path, value in values.items():
        assign(config, path, value)
    if config.data.dataset.partition("/")[0] != before.partition("/")[0]:
        given = {name: value for name, value in config.data.builder.items() if f"data.builder.{name}" in values}
        config.data.builder = given
    return values


def parse(changes: Iterable[tuple[str, str]], known: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values by path, each converted to the type of that field in `known`.

    Raises:
        UserError: for a field that is not in `known`, and for text that cannot be converted.
    """
    values = {}
    for path, text in changes:
        if path not in known:
            raise UserError(f"--config.{path}={text}: no such field; {nearest_field(path, known)}")
        try:
            values[path] = _value(text, known[path])
        except (ValueError, KeyError) as error:
            kind = type(known[path])
            example = f" such as {known[path] or ('a', 'b')}" if kind is tuple else ""
            raise UserError(f"--config.{path}={text[:SHOWN]}: give {KINDS[kind]}{example}") from error
    return values


def _value(text: str, like: Any) -> Any:
    if isinstance(like, bool):
        return BOOLEANS[text.lower()]
    if isinstance(like, (int, float)):
        value = whole_number(text, -LARGEST_INTEGER) if isinstance(like, int) else number(text)
        if value is None:
            raise ValueError(text)
        return value
    if not isinstance(like, tuple):
        return type(like)(text)
    if re.fullmatch(r"[a-zA-Z][\w.:,+-]*", text):  # words need no quotes: flip,shift:4
        return tuple(text.split(","))
    value = literal(text or "()")
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
