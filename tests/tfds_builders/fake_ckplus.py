"""A tiny CK+: three parallel trees as the archives unpack, random pixels, points where a face would have them."""

from __future__ import annotations

import pathlib

import fake_pictures
import numpy as np

# (subject, sequence, code or None, frames); S014 has no label at all, S022/003 none of its own.
SEQUENCES = (
    ("S005", "001", 3, 4),
    ("S010", "002", 7, 3),
    ("S010", "006", 5, 1),
    ("S011", "001", 7, 2),
    ("S014", "001", None, 2),
    ("S022", "003", None, 3),
    ("S022", "005", 1, 2),
    ("S501", "002", 2, 2),
    ("S502", "004", 4, 2),
    ("S999", "006", 6, 2),
)
COUNTS = (1, 1, 1, 1, 1, 1, 2)
SIZE = (64, 49)  # width and height, a tenth of the real ones


def points(number: int = 0) -> np.ndarray:
    """68 points (x, y): eyes at (24, 20) and (40, 20), corners of the mouth at (26, 36) and (38, 36), and moved."""
    face = np.tile([32.0, 28.0], (68, 1))
    face += np.random.default_rng(5).uniform(-12, 12, (68, 2))
    turn = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    ring = np.stack([2 * np.cos(turn), np.sin(turn)], axis=1)
    face[36:42], face[42:48] = np.add(ring, [24, 20]), np.add(ring, [40, 20])
    face[48], face[54] = (26, 36), (38, 36)
    return face + number * 0.5


def stem(subject: str, sequence: str, number: int) -> str:
    return f"{subject}_{sequence}_{number:08d}"


def make(folder: pathlib.Path, sequences=SEQUENCES, lower: float = 0.0) -> pathlib.Path:
    """Writes the three trees below `folder`, wrapped as their archives wrap them, and returns it.

    The mouth goes down by `lower` pixels a frame, times the code.
    """
    for subject, sequence, code, frames in sequences:
        place = pathlib.Path(subject) / sequence
        for number in range(1, frames + 1):
            name = stem(subject, sequence, number)
            color = subject == "S999"  # some late ones are in color, and a little higher or lower
            width, height = SIZE if not color else (64, 48)
            fake_pictures.write(images(folder) / place / f"{name}.png", width, height, 3 if color else 1)
            face = points(number)
            face[48:, 1] += lower * number * (code or 0)
            text(folder / "Landmarks" / place / f"{name}_landmarks.txt", rows(face))
        (folder / "Emotion" / place).mkdir(parents=True)  # empty where there is no label
        if code is not None:
            text(emotion(folder, subject, sequence, frames), f"   {code:.7e}\n")
    (images(folder) / ".DS_Store").write_bytes(b"x")
    (images(folder) / "S005" / "001" / "Thumbs.db").write_bytes(b"x")
    (folder / "Emotion" / "ReadMe.txt").write_text("0=neutral, 1=anger ...")
    return folder


def images(folder: pathlib.Path) -> pathlib.Path:
    return folder / "extended-cohn-kanade-images" / "cohn-kanade-images"


def emotion(folder: pathlib.Path, subject: str, sequence: str, frames: int) -> pathlib.Path:
    return folder / "Emotion" / subject / sequence / f"{stem(subject, sequence, frames)}_emotion.txt"


def rows(some: np.ndarray) -> str:
    return "".join(f"   {x:.7e}   {y:.7e}\n" for x, y in some)


def text(path: pathlib.Path, said: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(said)
