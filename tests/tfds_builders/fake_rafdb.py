"""A tiny RAF-DB: the tree, the names and the oddities of the real one, random pixels."""

from __future__ import annotations

import pathlib

import fake_pictures

COUNTS = {"train": (2, 1, 1, 3, 2, 1, 2), "test": (1, 1, 1, 1, 1, 1, 1)}
BOX = (40, 40, 120, 140)


def names(counts=COUNTS) -> list[tuple[str, int]]:
    """(name, code), codes mixed within each split."""
    rows = []
    for split, numbers in counts.items():
        codes = [code for code, n in enumerate(numbers, start=1) for _ in range(n)]
        digits = 5 if split == "train" else 4
        rows += [(f"{split}_{i:0{digits}d}.jpg", c) for i, c in enumerate(codes[::2] + codes[1::2], start=1)]
    return rows


def make(folder: pathlib.Path, part: str = "basic", counts=COUNTS, nested: bool = False) -> pathlib.Path:
    """Writes the tree below `folder` and returns the part's folder. `nested` doubles Image/aligned."""
    root = folder / part
    rows = names(counts)
    aligned = root / "Image" / "aligned" / ("aligned" if nested else "")
    for name, _ in rows:
        stem = name.removesuffix(".jpg")
        fake_pictures.write(aligned / f"{stem}_aligned.jpg")
        fake_pictures.write(root / "Image" / "original" / name, 160, 180)
        box = root / "Annotation" / "boundingbox" / f"{stem}_boundingbox.txt"
        box.parent.mkdir(parents=True, exist_ok=True)
        box.write_text(" ".join(f"{v:.2f}" for v in BOX) + "\n")
    (root / "EmoLabel").mkdir()
    # The real list ends without a line break.
    (root / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(f"{n} {c}" for n, c in rows))
    return root
