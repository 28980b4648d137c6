"""Clips stored as a folder of pictures: their frames by number, whole or resized."""

from __future__ import annotations

import io
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from fer_jax.errors import UserError
from fer_jax.faces.pictures import LARGEST_SIDE, encoded
from tfds_builders.problems import Problems
from tfds_builders.sequences import pictures_in, tallied, whole_frames

RGB = 3
NUMBERS = re.compile(r"[0-9]+")


def numbered_frames(folder: pathlib.Path | str, problems: Problems) -> tuple[str, ...]:
    """Returns the paths of the pictures in a folder, sorted by the numbers in their names: 2.jpg before 10.jpg.

    If a name has several numbers, the first is compared first: 1_10.jpg before 2_3.jpg. () if the folder is empty or
    does not exist.
    """
    by_number: dict[tuple[int, ...], str] = {}
    for name, path in sorted(pictures_in(folder).items()):
        number = tuple(int(digits) for digits in NUMBERS.findall(os.path.splitext(name)[0]))
        if not number:
            problems.mistake(path, "has no number in its name, and frames are sorted by number: restore its name")
        elif number in by_number:
            other = os.path.basename(by_number[number])
            problems.mistake(path, f"has the number of {other} beside it: remove one of them")
        else:
            by_number[number] = path
    return tuple(by_number[number] for number in sorted(by_number))


def stored_frames(
    files: Sequence[str], edition: tuple[int, int] | None, size: int
) -> tuple[list[io.BytesIO], tuple[str, ...]]:
    """Returns the frames of a clip in RGB, and what was converted; a frame that has its size already is copied.

    Args:
        files: the frames in order.
        edition: (height, width) that each frame must have; None takes any, and puts a frame that is not square between
            black bars.
        size: side of the square that they are resized to; 0, with an edition, stores them whole.

    Raises:
        BadPicture: as `pictures.copied`, naming the frame.
    """
    whole, notes = whole_frames(files, RGB, edition)
    if not size:
        return whole, notes
    frames, barred = [], 0
    for file in whole:
        image = Image.open(file)
        barred += image.width != image.height
        if image.size == (size, size):
            file.seek(0)
            frames.append(file)
        else:  # Pillow's bilinear filter is antialiased
            small = ImageOps.pad(image, (size, size), Image.Resampling.BILINEAR)
            frames.append(io.BytesIO(encoded(np.asarray(small), "JPEG")))
    return frames, (*notes, *tallied(["put between black bars, as it is not square"] * barred))


def check_frames(dataset: str, every: int, size: int, smallest: int = 0) -> None:
    """Raises unless `every` and `size`, at least `smallest`, are valid options."""
    if every < 1:
        raise UserError(
            f"{dataset}: option every={every} must be at least 1: each n-th frame, beginning with the first"
        )
    if not smallest <= size <= LARGEST_SIDE:
        whole = "" if smallest else ", or 0 for frames as they are"
        raise UserError(f"{dataset}: option size={size} must be from 1 to {LARGEST_SIDE}{whole}")
