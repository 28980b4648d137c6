"""A small JAFFE: the names and the size of the real one, random gray pixels."""

from __future__ import annotations

import pathlib

import fake_pictures

PEOPLE = ("KA", "UY")
COUNTS = {"AN": 2, "DI": 2, "FE": 2, "HA": 3, "NE": 2, "SA": 2, "SU": 2}  # the third happy one is KA's


def make(folder: pathlib.Path) -> pathlib.Path:
    """Writes the tree below `folder` and returns the folder of the pictures."""
    root, number = folder / "jaffe", 38
    for person in PEOPLE:
        for code, n in COUNTS.items():
            for take in range(1, n // 2 + 1 + (n % 2 if person == "KA" else 0)):
                number += 1
                fake_pictures.write(root / f"{person}.{code}{take}.{number}.tiff", 256, 256, channels=1)
    (root / "README").write_text("ratings")
    (root / ".DS_Store").write_bytes(b"x")
    (root / "._KA.AN1.39.tiff").write_bytes(b"x")
    return root
