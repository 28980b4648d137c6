"""A tiny RAF-CE: the files that public programs read; a picture's gray says its code."""

from __future__ import annotations

import pathlib

import fake_pictures

LABELS, PARTITION = "RAFCE_emolabel.txt", "RAFCE_partition.txt"


def rows() -> list[tuple[str, int, int]]:
    """(name, code, part): every class once in each part."""
    return [(f"{100 + 7 * i:04d}.jpg", (5 * i) % 14, i // 14) for i in range(42)]


def level(code: int) -> int:
    return 20 + 15 * code


def make(folder: pathlib.Path) -> pathlib.Path:
    for name, code, _ in rows():
        fake_pictures.flat(folder / "RAF-AU" / "aligned" / name.replace(".jpg", "_aligned.jpg"), level(code))
    (folder / LABELS).write_text("\r\n".join([*(f"{name} {code}" for name, code, _ in rows()), "", ""]))
    parts = [f"{name} {part}" for name, _, part in reversed(rows())]
    (folder / PARTITION).write_text("\n".join([*parts, "9999.jpg 0"]))  # one without a label
    (folder / "RAFCE_AUlabel.txt").write_text("0100.jpg null\n")
    return folder
