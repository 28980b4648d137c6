"""A small FED-RO: folders of classes, one of them misspelt, random pixels."""

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
