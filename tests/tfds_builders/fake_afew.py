"""A tiny AFEW: the tree, the names and the oddities of the real one; a white corner in a frame stands for a face."""

from __future__ import annotations

import pathlib

import cv2
import fake_pictures
import numpy as np

CLASSES = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
COUNTS = {"train": (2, 1, 1, 1, 1, 1, 1), "validation": (1,) * 7}
FOLDERS = {"train": "Train_AFEW", "validation": "Val_AFEW"}
ARCHIVES = {"train": "AlignedFaces_LBPTOP_Points", "validation": "AlignedFaces_LBPTOP_Points_Val"}
WIDTH, HEIGHT, RATE = 96, 80, 25
FACE = (20, 10, 48, 48)  # x, y, w, h
LEVELS = (40, 120, 200)  # gray of the frames of a clip, one after the other
NO_FACE = "train", 2  # the clip without any


def clips(split: str) -> list[tuple[str, str]]:
    """(id, class) by id; neighbors differ in class."""
    codes = [code for code, n in zip(CLASSES, COUNTS[split], strict=True) for _ in range(n)]
    codes = codes[::2] + codes[1::2]
    begin = 0 if split == "train" else 500
    return [(f"{begin + 13 * i:03d}736{i:03d}"[:9], code) for i, code in enumerate(codes)]


def frames(split: str, place: int) -> list[np.ndarray]:
    """RGB; the second frame, and all of one clip, show no face."""
    images = []
    for i, level in enumerate(LEVELS):
        image = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
        shown = i != 1 and (split, place) != NO_FACE
        image[:8, :8] = 255 if shown else 0
        images.append(image)
    return images


def write_video(path: pathlib.Path, images: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = images[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), RATE, size)
    for image in images:
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()


def make(folder: pathlib.Path, doubled: bool = False, aligned: bool = True) -> pathlib.Path:
    """Writes the tree below `folder`. `doubled` doubles the folders of the archives."""
    for split, name in FOLDERS.items():
        root = folder / name
        faces = root / ARCHIVES[split] / (ARCHIVES[split] if doubled else "") / "Faces"
        for place, (clip, code) in enumerate(clips(split)):
            write_video(root / code / f"{clip}.avi", frames(split, place))
            if not aligned or (split, place) == NO_FACE:
                continue
            for number in (1, 2, 10):  # by text 10 would come before 2
                image = np.full((128, 128), 20 * number, np.uint8)
                file = faces / clip / f"{number}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                fake_pictures.Image.fromarray(image).save(file)
        (root / "Thumbs.db").write_bytes(b"x")
        (root / "Angry" / ".DS_Store").write_bytes(b"x")
        (root / "Angry" / "._000736000.avi").write_bytes(b"x")
        (root / "Train_6.xml").write_text("<Clips/>")
    return folder
