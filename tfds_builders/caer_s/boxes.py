"""The public lists of one face's box in each picture of CAER-S: test/Sad/0157.png,5,191,109,293,211."""

from __future__ import annotations

import pathlib

from fer_jax.parsing import LARGEST_PIXEL, numbers, read_text
from tfds_builders.face_crops import Box
from tfds_builders.problems import Problems


def read_boxes(path: pathlib.Path, problems: Problems) -> dict[str, Box]:
    """Returns 'test/Sad/0157.png' -> (x, y, width, height) in pixels, in the order of the list.

    The number after the name must stand for one folder only, whichever it is: the folder says the class.
    """
    boxes: dict[str, Box] = {}
    folder_of: dict[str, str] = {}
    for number, line in enumerate(read_text(path, damaged="replace").splitlines(), start=1):
        if not line.strip():
            continue
        where, (name, *cells) = f"{path}:{number}", [cell.strip() for cell in line.split(",")]
        corners = numbers(cells[1:], LARGEST_PIXEL)
        if len(corners) != 4 or corners[2] <= corners[0] or corners[3] <= corners[1]:
            example = "test/Sad/0157.png,5,191,109,293,211"
            problems.mistake(where, f"is '{line.strip()[:60]}' where '{example}' is expected: get the list again")
            continue
        folder = name.rpartition("/")[0]
        if folder_of.setdefault(cells[0], folder) != folder:
            told = f"has the label {cells[0][:20]} for {folder}, and {folder_of[cells[0]]} above: get the list again"
            problems.mistake(where, told)
        elif name in boxes:
            problems.mistake(where, f"names {name} a second time: remove one of the rows")
        else:
            left, top, right, bottom = corners
            boxes[name] = (left, top, right - left, bottom - top)
    return boxes
