"""What a user gives to look for faces in, read picture by picture: photos, videos, folders of both, cameras."""

from __future__ import annotations

import os
import pathlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from fer_jax.faces import pictures, video
from fer_jax.faces.pictures import BadPicture

VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
CAMERA = re.compile(r"camera:([0-9]{1,3})", re.ASCII)


@dataclass(frozen=True)
class Input:
    """A photo, a video, or a camera.

    Attributes:
        path: of its file, or 'camera:0'.
        kind: 'photo', 'video' or 'camera'.
        image: RGB uint8 [H, W, 3], of a photo that is no file.
    """

    path: str
    kind: str
    image: np.ndarray | None = None

    @property
    def name(self) -> str:
        """The path as it is written in tables; a file system allows names that are no text."""
        return self.path.encode(errors="backslashreplace").decode()


@dataclass(frozen=True)
class Picture:
    """A photo, or a frame of a video or a camera.

    Attributes:
        source: name of its input.
        image: RGB uint8 [H, W, 3]; None if it cannot be read.
        frame, time: of a frame, from 0, and in seconds since the first.
        problem: why it cannot be read.
    """

    source: str
    image: np.ndarray | None
    frame: int | None = None
    time: float | None = None
    problem: str = ""


def find_inputs(given: Sequence[str | os.PathLike], drawn: pathlib.Path | None = None) -> list[Input]:
    """Returns the inputs that paths and 'camera:N' name, in order, each once; folders are searched with all below them.

    In a folder it takes files by their endings, but none that earlier commands have drawn into `drawn`; a file that is
    given itself may have any ending and place.

    Raises:
        UserError: if there is nothing at a path, or no photo and no video in a folder.
    """
    found: dict[str, Input] = {}
    for place in given:
        text = os.fspath(place)
        if not text:
            raise UserError("the path of an input is empty: give a photo, a video, a folder or camera:0")
        path = pathlib.Path(text).expanduser()
        if CAMERA.fullmatch(text):
            found[text] = Input(text, "camera")
        elif path.is_dir():
            inside = [inner for inner in sorted(path.rglob("*")) if _kind(inner) and inner.is_file()]
            if drawn:
                inside = [inner for inner in inside if drawn.resolve() not in inner.resolve().parents]
            if not inside:
                endings = ", ".join(sorted(pictures.EXTENSIONS | VIDEOS))
                raise UserError(
                    f"there is no photo and no video in {path}: it takes files by their endings ({endings})"
                )
            found |= {str(inner): Input(str(inner), _kind(inner)) for inner in inside}
        elif path.exists():
            found[str(path)] = Input(str(path), _kind(path) or "photo")
        else:
            raise UserError(f"there is no file and no folder {text}: check the path")
    return list(found.values())


def read(source: Input, frames_per_second: float | None = None) -> Iterator[Picture]:
    """Yields the picture of a photo, or the frames of a video or a camera, at most so many a second.

    What cannot be read is a picture with a problem: a photo as a whole, of a video what comes after a damaged place.

    Raises:
        UserError: if there is no such camera, or a package for videos is missing.
    """
    if source.kind == "photo":
        try:
            image = pictures.pixels(source.path, 3)[0] if source.image is None else source.image
            yield Picture(source.name, image)
        except BadPicture as error:
            yield Picture(source.name, None, problem=str(error))
        return
    if source.kind == "camera":
        yield from _camera(source, frames_per_second)
        return
    video.require(source.path)
    problems: list[str] = []
    number = -1
    try:
        for number, (seconds, image) in enumerate(
            video.read(source.path, fps=frames_per_second, on_damage=problems.append)
        ):
            yield Picture(source.name, image, number, seconds)
    except UserError as error:
        problems.append(str(error))
    for problem in problems:
        yield Picture(source.name, None, number + 1, problem=problem)


def _camera(source: Input, frames_per_second: float | None) -> Iterator[Picture]:
    import cv2

    number = source.path.partition(":")[2]
    cv2.utils.logging.setLogLevel(0)  # what is wrong is said below
    camera: Any = cv2.VideoCapture(int(number))
    if not camera.isOpened():
        raise UserError(f"there is no camera {number}, or another program uses it: connect one, or give a file")
    try:
        began, due, frame = time.monotonic(), 0.0, 0
        while (answer := camera.read())[0]:
            seconds = time.monotonic() - began
            if frames_per_second and seconds < due:
                continue
            due = seconds + 1 / frames_per_second if frames_per_second else 0.0
            yield Picture(source.name, np.ascontiguousarray(answer[1][..., ::-1]), frame, seconds)
            frame += 1
    finally:
        camera.release()


def _kind(path: pathlib.Path) -> str:
    """Returns 'photo' or 'video' by the ending of a file's name, '' for another one; hidden files are neither."""
    if pictures.is_picture(path.name):
        return "photo"
    return "video" if path.suffix.lower() in VIDEOS and not path.name.startswith(".") else ""
