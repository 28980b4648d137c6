"""The text files of RAF-DB beside its label list: manual attributes, boxes."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np

from fer_jax.parsing import LARGEST_PIXEL, Unreadable, numbers, read_text
from tfds_builders.problems import Problems

NAME = re.compile(r"(train|test)_\d+\.jpg")
UNKNOWN = -1
ATTRIBUTES = {"gender": 3, "race": 3, "age": 5}  # how many codes each has


def read_manual(folder: pathlib.Path, stem: str, problems: Problems) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns five points float32 [5, 2] (eyes, nose tip, corners of the mouth, pixels of the original) and attributes.

    NaN and -1 if the folder or the file does not exist: they are optional.
    """
    points, attributes = np.full((5, 2), np.nan, np.float32), dict.fromkeys(ATTRIBUTES, UNKNOWN)
    path = folder / f"{stem}_manu_attri.txt"
    if not path.exists():
        return points, attributes
    found = _numbers(path)
    if len(found) != 10 + len(ATTRIBUTES):
        problems.mistake(path, "does not hold five points and three codes: unpack manual.zip again")
        return points, attributes
    points = np.array(found[:10], np.float32).reshape(5, 2)
    for (name, most), code in zip(ATTRIBUTES.items(), map(int, found[10:]), strict=True):
        if not 0 <= code < most:
            problems.mistake(path, f"has the {name} {code}, and codes are 0 to {most - 1}: correct it")
        attributes[name] = code
    return points, attributes


def read_box(folder: pathlib.Path, stem: str, problems: Problems) -> tuple[float, float, float, float] | None:
    """Returns (x_min, y_min, x_max, y_max) in pixels of the original; None, and a gap, if there is none."""
    path = folder / f"{stem}_boundingbox.txt"
    if not path.exists():
        problems.gap(path, "is not there: unpack boundingbox.zip again")
        return None
    found = _numbers(path)
    if len(found) != 4:
        problems.mistake(path, "does not hold four numbers: unpack boundingbox.zip again")
        return None
    return found[0], found[1], found[2], found[3]


def _numbers(path: pathlib.Path) -> list[float]:
    """Returns the numbers in a file; [] if it holds something else."""
    try:
        return numbers(read_text(path).split(), LARGEST_PIXEL)
    except Unreadable:
        return []
