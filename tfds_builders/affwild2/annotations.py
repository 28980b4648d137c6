"""The annotations of a video of Aff-Wild2: the names of the classes, then a row with a number for each frame."""

from __future__ import annotations

import pathlib

from fer_jax import labels
from fer_jax.parsing import read_text, whole_number
from tfds_builders.problems import Problems

IGNORED = -1


def read_frames(path: pathlib.Path, every: int, problems: Problems) -> dict[int, str]:
    """Returns number of the frame, from 1 -> name of its class; frames labeled -1 are left out.

    The first row says which class a number stands for. A blank row between others would shift the frames after it, and
    is a mistake.

    Args:
        path: of the annotations.
        every: only each n-th frame, beginning with the first.
        problems: for unknown classes, and rows without the number of a class.
    """
    header, *rows = read_text(path, damaged="replace").rstrip().split("\n")
    names = [labels.class_name(name) for name in header.split(",")]
    known = labels.CODES["affwild2"]
    if unknown := [name for name in names if name not in known]:
        told = f"has the class '{unknown[0][:40]}' in its first row, and they are {', '.join(map(str, known))}"
        problems.mistake(path, f"{told}: get it again")
        return {}
    frames = {}
    for number, row in enumerate(rows, start=1):
        code = whole_number(row.strip(), IGNORED, len(names) - 1)
        if code is None:
            told = f"has '{row.strip()[:40]}' where a number from -1 to {len(names) - 1} is expected: get it again"
            problems.mistake(f"{path}:{number + 1}", told)
            return {}
        if code != IGNORED and (number - 1) % every == 0:
            frames[number] = names[code]
    return frames
