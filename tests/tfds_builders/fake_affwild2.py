"""A tiny Aff-Wild2: the tree, the names and the oddities of the real one; a frame's gray says its class."""

from __future__ import annotations

import pathlib

import fake_pictures

CLASSES = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
TASK = "EXPR_Classification_Challenge"
IGNORED = -1
LABELS = {  # of the frames of each video; the third frame of each has no picture
    "train": {
        "12-24-1920x1080": (0, 1, 2, IGNORED, 3, 4),
        "120-120-1280x720": (5, 6, 7, 7),
        "video93_left": (IGNORED, 0, 1, 4),
        "video93_right": (2, 3, 4, 5),
    },
    "validation": {"282": (0, 1, 1, 2, 3, 4), "video59": (4, 5, 6, 6, 7, IGNORED)},
}
AFFECT = {  # of two videos, one of them in the other split; the first has fewer rows than frames
    "Train_Set/12-24-1920x1080.txt": ("0.5,-0.25", "-5,-5", "0.1,0.1", "1.0,-1.0"),
    "Train_Set/282.txt": ("-0.5,0.75",) * 6,
    "Validation_Set/video_of_no_expression.txt": ("0,0",),
}
FOLDERS = {"train": "Train_Set", "validation": "Validation_Set"}


def level(code: int) -> int:
    return 20 + 25 * code


def frames(split: str) -> list[tuple[str, int]]:
    """(name, code) of the frames that have a label and a picture."""
    return [
        (f"{video}/{number:05d}.jpg", code)
        for video, codes in LABELS[split].items()
        for number, code in enumerate(codes, start=1)
        if code != IGNORED and number != 3
    ]


def make(folder: pathlib.Path, classes: tuple[str, ...] = CLASSES) -> pathlib.Path:
    """`classes` is the order in the first rows, by which the numbers in the files are chosen."""
    for split, videos in LABELS.items():
        for video, codes in videos.items():
            for number, code in enumerate(codes, start=1):
                if number != 3:
                    fake_pictures.flat(
                        folder / "cropped_aligned" / video / f"{number:05d}.jpg", level(code % 8), 12, 12
                    )
            numbers = [c if c == IGNORED else classes.index(CLASSES[c]) for c in codes]
            path = list_file(folder, split, video)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\r\n".join([",".join(classes), *map(str, numbers), "", ""]))
    fake_pictures.flat(folder / "cropped_aligned" / "test_video" / "00001.jpg", 0)  # in no set
    (folder / "cropped_aligned" / "282" / ".DS_Store").write_bytes(b"x")
    for place, rows in AFFECT.items():
        path = folder / "Annotations" / "VA_Estimation_Challenge" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\r\n".join(["valence,arousal", *rows, ""]))
    return folder


def list_file(folder: pathlib.Path, split: str, video: str) -> pathlib.Path:
    return folder / "Annotations" / TASK / FOLDERS[split] / f"{video}.txt"
