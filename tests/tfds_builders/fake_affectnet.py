"""A tiny AffectNet in both releases: trees, names and oddities of the real ones, random pixels."""

from __future__ import annotations

import pathlib

import fake_pictures
import numpy as np

HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
COUNTS = {"train": (2, 3, 1, 1, 1, 1, 2, 1), "validation": (1,) * 8}
BOX = (30, 40, 100, 100)
MARKS = np.stack([np.linspace(50, 110, 68), np.linspace(60, 120, 68)], axis=1).round(2)
LISTS = "Manually_Annotated_file_lists"


def codes(split: str) -> list[int]:
    return [code for code, n in enumerate(COUNTS[split]) for _ in range(n)]


def row(name: str, code: int, box=BOX, marks=MARKS) -> str:
    landmarks = ";".join(f"{v:g}" for v in np.asarray(marks).ravel())
    return ",".join(map(str, (name, *box, landmarks, code, *affect(code))))


def affect(code: int) -> tuple[float, float]:
    """Valence and arousal; -2 of uncertain pictures, and of code 3."""
    return (-2, -2) if code >= 9 or code == 3 else (0.25 - 0.125 * code, -0.055556)


def make_csv(folder: pathlib.Path, header_of_validation: bool = False) -> pathlib.Path:
    """The original release: photos of several formats, rows of codes 8 to 10 too, no header in validation.csv."""
    for split, name in (("train", "training"), ("validation", "validation")):
        rows = []
        for i, code in enumerate([*codes(split), 8, 9, 10]):
            suffix = ("jpg", "JPG", "png", "bmp")[i % 4]
            picture = f"{i % 3 + 1}/{name}{i:04d}.{suffix}"
            fake_pictures.write(folder / "Manually_Annotated" / "Manually_Annotated_Images" / picture, 160, 180)
            rows.append(row(picture, code))
        path = folder / LISTS / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        head = [HEADER] if split == "train" or header_of_validation else []
        path.write_text("\n".join([*head, *rows]) + "\n")
    return folder


def make_npy(folder: pathlib.Path) -> pathlib.Path:
    """The newer release: numbers with gaps, annotations stored as text."""
    for split, name in (("train", "train_set"), ("validation", "val_set")):
        (folder / name / "annotations").mkdir(parents=True)
        for i, code in enumerate(codes(split)):
            number = 7 * i + 2
            fake_pictures.write(folder / name / "images" / f"{number}.jpg", 224, 224)
            values = {"exp": str(code), "lnd": MARKS.ravel()}
            values |= dict(zip(("val", "aro"), map(str, affect(code)), strict=True))
            for kind, value in values.items():
                np.save(folder / name / "annotations" / f"{number}_{kind}.npy", np.array(value))
    return folder
