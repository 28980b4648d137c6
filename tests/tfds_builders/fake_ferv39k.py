"""A tiny FERV39k: the tree, the names and the oddities of the real one; a frame is as gray as its number says."""

from __future__ import annotations

import pathlib

import fake_pictures

CLASSES = ("Happy", "Sad", "Neutral", "Angry", "Surprise", "Disgust", "Fear")
COUNTS = {"train": (3, 2, 2, 2, 1, 1, 1), "test": (1,) * 7}
SHADE = 20  # gray of frame n is n times this
NUMBERS = (9, 1, 10)  # of frames; by text 10 comes before 9


def clips(split: str) -> list[tuple[str, str]]:
    """(name, class) in the order of the lists: neighbors differ in class, and numbers are not sorted."""
    scenes, first = ("Action", "DailyLife"), 70 if split == "train" else 0
    rows = [
        (f"{scenes[i % 2]}/{code}/{first + i:04d}", code)
        for code, n in zip(CLASSES, COUNTS[split], strict=True)
        for i in reversed(range(n))
    ]
    return rows[::2] + rows[1::2]


def make(folder: pathlib.Path) -> pathlib.Path:
    for split in COUNTS:
        for name, _ in clips(split):
            for n in NUMBERS:
                fake_pictures.flat(clip_folder(folder, name) / f"{n}.jpg", SHADE * n)
        lines = "\r\n".join(f"{name} {code}" for name, code in clips(split))
        list_file(folder, split).parent.mkdir(parents=True, exist_ok=True)
        list_file(folder, split).write_text(f"{lines}\r\n\r\n")  # blank lines at the end
    fake_pictures.flat(clip_folder(folder, "Action/Happy/0099") / "1.jpg", 0)  # in no list
    (folder / "4_setups" / "Action").mkdir()  # the lists of single scenes are not read
    (clip_folder(folder, "Action/Happy/0099") / "Thumbs.db").write_bytes(b"x")
    return folder


def clip_folder(folder: pathlib.Path, name: str) -> pathlib.Path:
    return folder / "2_ClipsforFaceCrop" / name


def list_file(folder: pathlib.Path, split: str) -> pathlib.Path:
    return folder / "4_setups" / "All_scenes" / f"{split}_All.csv"
