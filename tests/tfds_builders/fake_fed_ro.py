"""A small FED-RO in the layouts that users have: folders of classes, one of them misspelt, or a list; random pixels."""

from __future__ import annotations

import pathlib

import fake_pictures

FOLDERS = {  # folder -> emotion
    "neural": "neutral",
    "happy": "happiness",
    "surprise": "surprise",
    "sad": "sadness",
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
}
EACH = 2


def make_folders(folder: pathlib.Path) -> pathlib.Path:
    root = folder / "FED-RO"
    for i, name in enumerate(FOLDERS):
        for k in range(EACH):
            fake_pictures.write(root / name / f"{k}.jpg", 60 + 10 * i, 80)
    (root / "occlusion_emotion_list.txt").write_text("neural/0.jpg\n")
    (root / ".DS_Store").write_bytes(b"x")
    return root


def make_list(folder: pathlib.Path) -> pathlib.Path:
    """Writes pictures in one folder and a list beside it; returns the list."""
    root = folder / "FED-RO"
    lines = []
    for i, word in enumerate(FOLDERS.values()):
        for k in range(EACH):
            name = f"{word[:3]}{k}.png"
            fake_pictures.write(root / "images" / name, 60 + 10 * i, 80)
            lines.append(f"{name} {word}")
    (root / "list.txt").write_text("\n".join(lines))
    (root / "readme.txt").write_text("400 pictures")
    return root / "list.txt"
