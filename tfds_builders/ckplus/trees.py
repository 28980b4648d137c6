"""The parallel trees of CK+: pictures, landmarks and emotions, each by subject and sequence."""

from __future__ import annotations

import os
import pathlib
import re

import numpy as np

from fer_jax.faces.pictures import BadPicture
from fer_jax.parsing import number, numbers, read_text
from tfds_builders.listing import files_below, folders_in
from tfds_builders.problems import Problems

SUBJECT = r"S\d{3}"
SEQUENCE = r"\d{3}"
FRAME = re.compile(r"S\d{3}_\d{3}_\d+\.[^.]+$")
EMOTION = re.compile(r"(S\d{3}_\d{3}_\d+)_emotion\.txt$")
LANDMARK_FILE = re.compile(r"S\d{3}_\d{3}_\d+_landmarks\.txt$")
LANDMARKS = 68
OUTSIDE = 0.1  # of the picture's longer side: points farther outside belong to another picture


def sequences_of(tree: pathlib.Path) -> dict[str, str]:
    """Returns 'S005/001' -> path of the folders of sequences, sorted."""
    return {
        f"{subject}/{sequence}": path
        for subject, folder in folders_in(tree, SUBJECT).items()
        for sequence, path in folders_in(folder, SEQUENCE).items()
    }


def texts_in(folder: str, pattern: re.Pattern[str]) -> dict[str, str]:
    """Returns name -> path of the files of one kind in the folder of a sequence."""
    return files_below(folder, pattern.fullmatch)


def read_emotion(folder: str, problems: Problems) -> tuple[int, str] | None:
    """Returns (code, 'S005_001_00000011', the peak frame), or None for the folder of a sequence without a label."""
    files = sorted(texts_in(folder, EMOTION).items())
    if not files:
        return None
    if len(files) > 1:
        problems.mistake(folder, f"holds {len(files)} files of emotions: remove the wrong ones")
        return None
    name, path = files[0]
    words = _text(path).split()
    value = number(words[0]) if len(words) == 1 else None
    if value is None or value not in range(1, 8):
        said = " ".join(words)[:40] or "nothing"
        problems.mistake(path, f"says '{said}', and codes are 1 to 7: unpack Emotion_labels.zip again")
        return None
    match = EMOTION.fullmatch(name)
    assert match is not None
    return int(value), match[1]


def read_landmarks(path: str, size: tuple[int, int]) -> np.ndarray:
    """Returns the 68 points of a frame, float64 [68, 2] in pixels.

    Args:
        path: of the file, 68 rows of x and y.
        size: (height, width) of the frame.

    Raises:
        BadPicture: for another content, or points outside of the frame.
    """
    name = os.path.basename(path)
    points = np.array(numbers(_text(path).split()))
    if points.size != 2 * LANDMARKS:
        raise BadPicture(f"landmarks {name} are not {LANDMARKS} rows of x and y: unpack Landmarks.zip again")
    points = points.reshape(LANDMARKS, 2)
    height, width = size
    reach = OUTSIDE * max(size)
    if (points < -reach).any() or (points > (width + reach, height + reach)).any():
        raise BadPicture(
            f"landmarks {name} lie outside of their picture of {width}x{height} pixels: the picture was scaled or they "
            "belong to another; take both from the original archives"
        )
    return points


def _text(path: str) -> str:
    return read_text(path, "unpack the archive again", damaged="replace")
