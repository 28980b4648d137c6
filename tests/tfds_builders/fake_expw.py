"""A tiny ExpW: the tree, the names and the oddities of the real one; faces are squares of one gray."""

from __future__ import annotations

import pathlib

import fake_pictures
import numpy as np

SIDE = 20  # of a face
PICTURES = {
    f"{word}_{i}.jpg": 1 + i % 3 for i in range(1, 8) for word in ("angry_boy", "amazed_tourist")
}  # faces in each


def faces() -> list[tuple[str, int, int]]:
    """(picture, number, code), the faces of a picture one after the other."""
    every = [(name, number) for name, count in PICTURES.items() for number in range(count)]
    return [(*face, i % 7) for i, face in enumerate(every)]


def level(code: int) -> int:
    return 90 + 20 * code


def corner(number: int) -> tuple[int, int]:
    """(left, top) of a face; the last of three lies partly outside of its picture."""
    return 5 + 28 * number, 10


def row(name: str, number: int, code: int) -> str:
    left, top = corner(number)
    return f"{name} {number} {top} {left} {left + SIDE} {top + SIDE} 68.3616 {code}"


def make(folder: pathlib.Path) -> pathlib.Path:
    photos = {name: np.full((40, 70, 3), 30, np.uint8) for name in PICTURES}
    for name, number, code in faces():
        left, top = corner(number)
        photos[name][top : top + SIDE, left : left + SIDE] = level(code)
    (folder / "image" / "origin").mkdir(parents=True)
    for name, photo in photos.items():
        fake_pictures.Image.fromarray(photo).save(folder / "image" / "origin" / name, quality=95)
    fake_pictures.write(folder / "image" / "origin" / "nobody_1.jpg")  # in no row
    list_file(folder).parent.mkdir()
    list_file(folder).write_text("\n".join([*(row(*face) for face in faces()), "", ""]))
    return folder


def list_file(folder: pathlib.Path) -> pathlib.Path:
    return folder / "label" / "label.lst"
