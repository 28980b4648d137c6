"""A tiny SFEW: the tree, the names and the oddities of the real one, random pixels."""

from __future__ import annotations

import pathlib

import fake_pictures

CLASSES = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
COUNTS = {"train": (2, 1, 1, 2, 1, 1, 1), "validation": (1,) * 7}
TOTALS = {split: sum(counts) for split, counts in COUNTS.items()}
FOLDERS = {"train": "Train", "validation": "Val"}


def names(split: str) -> list[tuple[str, str]]:
    """(name, class) by name; neighbors differ in class."""
    codes = [code for code, n in zip(CLASSES, COUNTS[split], strict=True) for _ in range(n)]
    movies = ("Airheads", "Bridesmaids") if split == "train" else ("Juno", "Ölüm")
    codes = codes[::2] + codes[1::2]
    return sorted((f"{movies[i // 5]}_{i:03d}519240_{i:08d}.png", code) for i, code in enumerate(codes))


def make(folder: pathlib.Path, inner: str = "Val_Aligned_Faces_new") -> pathlib.Path:
    """Writes full frames and aligned faces below `folder`; `inner` is the folder of aligned validation faces."""
    for split, name in FOLDERS.items():
        aligned = folder / name / ("Train_Aligned_Faces" if split == "train" else inner)
        for file, code in names(split):
            fake_pictures.write(aligned / code / file, 143, 181)
            fake_pictures.write(folder / name / code / file, 90, 72)
        (aligned / "Angry" / "Thumbs.db").write_bytes(b"x")
        (aligned / "README.txt").write_text("SFEW")
    fake_pictures.write(folder / "Test" / "Test_Aligned_Faces" / "Juno_000519240_00000099.png", 143, 181)
    return folder
