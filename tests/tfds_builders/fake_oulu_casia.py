"""A tiny Oulu-CASIA: cameras, lights, people and expressions as folders, random pixels, frames from 000.jpeg."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import fake_pictures

EMOTIONS = ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise")
PEOPLE = ("P001", "P002", "P013")


def make(
    folder: pathlib.Path,
    lights: Sequence[str] = ("VL/Strong",),
    within: str = "B_OriginalImg/B_OriginalImg/OriginalImg",
    size: tuple[int, int] = (80, 60),
) -> pathlib.Path:
    """Writes the tree below `folder` and returns the folder that holds the cameras."""
    root = folder / within
    for light in lights:
        for person in PEOPLE:
            for i, emotion in enumerate(EMOTIONS):
                for number in range(1 + i % 3):  # also of a single frame
                    path = root / light / person / emotion / f"{number:03d}.jpeg"
                    fake_pictures.write(path, *size)
                (root / light / person / emotion / "Thumbs.db").write_bytes(b"x")
        (root / light / ".DS_Store").write_bytes(b"x")
        (root / light / "readme.txt").write_text("80 people")
    return root
