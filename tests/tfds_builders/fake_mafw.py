"""A tiny MAFW: the tree, the names and the oddities of the real one; a frame is as gray as its number says."""

from __future__ import annotations

import pathlib

import fake_pictures

CLASSES = (
    *("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    *("contempt", "anxiety", "helplessness", "disappointment"),
)
FOLD_SIZES = (5, 5, 4, 4, 4)
SHADE = 20  # gray of frame n is n times this
NUMBERS = (9, 1, 10)  # of frames; by text 10 comes before 9
LISTS = pathlib.Path("split", "single", "no_caption")


def clips() -> list[tuple[str, str, int]]:
    """(name, class, fold) by number."""
    return [(f"{25 + 31 * i:05d}", CLASSES[i % len(CLASSES)], i % 5) for i in range(2 * len(CLASSES))]


def make(folder: pathlib.Path, lists: pathlib.Path = LISTS) -> pathlib.Path:
    for name, _, _ in clips():
        for n in NUMBERS:
            fake_pictures.flat(folder / "data" / "faces" / name / f"{n:04d}.png", SHADE * n)
    fake_pictures.flat(folder / "data" / "faces" / "20021" / "0001.png", 0)  # of several expressions
    fake_pictures.flat(folder / "data" / "frames" / "00025" / "0001.png", 0, width=32)  # a whole scene
    for fold in range(5):
        for part in ("train", "test"):
            # Sorted by class, as the real ones are, with blank lines.
            rows = sorted((CLASSES.index(c), n, c) for n, c, other in clips() if (other == fold) == (part == "test"))
            path = folder / lists / f"set_{fold + 1}" / f"{part}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(f"{n}.mp4 {c}" for _, n, c in rows) + "\n\n")
    return folder
