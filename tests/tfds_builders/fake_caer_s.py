"""A tiny CAER-S: the tree, the names and the oddities of the real one; the face of a scene is a square of one gray."""

from __future__ import annotations

import pathlib

import fake_pictures
import numpy as np

CLASSES = ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
COUNTS = {"train": (2, 1, 1, 2, 1, 1, 1), "test": (1,) * 7}
WIDTH, HEIGHT = 71, 40
BOX = (40, 10, 60, 30)  # left, top, right, bottom
SCENE = 16


def level(name: str) -> int:
    """The gray of the face in a scene."""
    return 100 + 20 * CLASSES.index(name.split("/")[1])


def names(split: str) -> list[str]:
    return [
        f"{split}/{code}/{i:04d}.png" for code, n in zip(CLASSES, COUNTS[split], strict=True) for i in range(1, n + 1)
    ]


def write(folder: pathlib.Path, name: str) -> None:
    left, top, right, bottom = BOX
    scene = np.full((HEIGHT, WIDTH, 3), SCENE, np.uint8)
    scene[top:bottom, left:right] = level(name)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    fake_pictures.Image.fromarray(scene).save(folder / name)


def make(folder: pathlib.Path) -> pathlib.Path:
    """Writes the scenes, and the lists of boxes beside them; one scene of each split has no box."""
    for split in COUNTS:
        for name in (*names(split), f"{split}/Sad/2999.png"):
            write(folder / "CAER-S", name)
        rows = [row(name) for name in names(split)]
        path = list_file(folder, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*rows[::2], "", *rows[1::2], ""]))  # mixed, with a blank line
    return folder


def row(name: str, box: tuple[int, ...] = BOX) -> str:
    return ",".join(map(str, (name, CLASSES.index(name.split("/")[1]), *box)))


def list_file(folder: pathlib.Path, split: str) -> pathlib.Path:
    return folder / "CAERS-Annotation" / f"{split}.txt"
