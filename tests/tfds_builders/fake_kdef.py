"""A small KDEF: two people in two sessions from all angles, names and defects of the real one, random pixels."""

from __future__ import annotations

import pathlib

import fake_pictures

PEOPLE = ("F31", "M05")
CODES = ("AF", "AN", "DI", "HA", "NE", "SA", "SU")
ANGLES = ("FL", "HL", "S", "HR", "FR")
EACH = 4  # of an expression and an angle
DARK = "BM05DIS"
MISNAMED = {"AF31SAHL": "AF31V"}


def make(
    folder: pathlib.Path, angles=ANGLES, flat: bool = False, size=(562, 762), sessions="AB", codes=CODES
) -> pathlib.Path:
    """Writes the tree below `folder` and returns the folder KDEF; in a flat one all pictures lie together."""
    root = folder / "KDEF_and_AKDEF" / "KDEF"
    for session in sessions:
        for person in PEOPLE:
            for code in codes:
                for angle in angles:
                    name = f"{session}{person}{code}{angle}"
                    path = root / ("" if flat else name[:4]) / f"{MISNAMED.get(name, name)}.JPG"
                    fake_pictures.write(path, *((570, 740) if name == "AM05ANFR" else size))
                    if name == DARK:
                        fake_pictures.Image.new("RGB", size, (3, 2, 2)).save(path)
    fake_pictures.write(root.parent / "AKDEF" / "FAFFL.JPG", 20, 30)
    fake_pictures.write(root / "MHAS.JPG", 20, 30)
    (root / "AF31" / "Thumbs.db").write_bytes(b"x") if not flat else (root / "Thumbs.db").write_bytes(b"x")
    return root
