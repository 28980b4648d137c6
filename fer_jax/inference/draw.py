"""Draws a box and a label on each face of pictures and videos."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_jax.errors import writing
from fer_jax.evaluation.predictions import PredictionRow
from fer_jax.faces.inputs import Picture
from fer_jax.faces.video import require
from fer_jax.report.style import class_color

TICKS = 90_000  # of a video's clock, in a second
UNSURE = "?"  # behind the label of a face that the model is unsure of


def annotated(image: np.ndarray, rows: Sequence[PredictionRow], classes: Sequence[str]) -> np.ndarray:
    """Returns a picture, RGB uint8 [H, W, 3], with a box and a label for each row of a face."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    thick = max(2, round(min(picture.size) / 250))
    font = _font(max(11, round(min(picture.size) / 32)))
    for row in rows:
        if row.expression is None or row.confidence is None:
            continue
        color = class_color(list(classes).index(row.expression))
        x, y, width, height = (row.x or 0.0, row.y or 0.0, row.width or picture.width, row.height or picture.height)
        draw.rectangle((x, y, x + width, y + height), outline=color, width=thick)
        label = f"{row.expression} {100 * row.confidence:.0f} %{UNSURE if row.unsure else ''}"
        box = draw.textbbox((0, 0), label, font=font)
        left = min(max(x, 0.0), max(picture.width - box[2] - 2 * thick, 0))
        top = y - box[3] - 2 * thick if y > box[3] + 2 * thick else y + thick
        draw.rectangle((left, top, left + box[2] + 2 * thick, top + box[3] + 2 * thick), fill="#1c2430")
        draw.text((left + thick, top + thick), label, font=font, fill="white")
    return np.asarray(picture)


class Drawings:
    """Writes annotated pictures into a folder: FOLDER/PATH.jpg for a photo, FOLDER/PATH.mp4 for a video."""

    def __init__(self, folder: pathlib.Path, classes: Sequence[str]):
        self._folder, self._classes = folder, classes
        self._video: tuple[str, Any, Any] | None = None  # source, container, stream
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, picture: Picture, rows: Sequence[PredictionRow]) -> None:
        """Draws one picture; frames of a video come one after the other."""
        if self._video is not None and self._video[0] != picture.source:
            self.close()
        if picture.image is None or any(row.frame_weights for row in rows):  # a row of a clip has no place in a frame
            return
        drawn = annotated(picture.image, rows, self._classes)
        if picture.frame is None:
            path = self._path(picture.source, ".jpg")
            with writing(path):
                Image.fromarray(drawn).save(path, quality=92)
        else:
            self._add_frame(picture, drawn)

    def close(self) -> None:
        """Completes the video that is being written."""
        if self._video is not None:
            _, container, stream = self._video
            self._video = None
            for packet in stream.encode():
                container.mux(packet)
            container.close()

    def _add_frame(self, picture: Picture, drawn: np.ndarray) -> None:
        drawn = drawn[: drawn.shape[0] // 2 * 2, : drawn.shape[1] // 2 * 2]  # H.264 takes even sides
        av = require(picture.source)
        if self._video is None:
            path = self._path(picture.source, ".mp4")
            with writing(path):
                container = av.open(str(path), "w")
            stream = container.add_stream("h264", rate=25)
            stream.height, stream.width, stream.pix_fmt = drawn.shape[0], drawn.shape[1], "yuv420p"
            stream.codec_context.time_base = Fraction(1, TICKS)
            stream.options = {"preset": "veryfast"}  # looks ahead 10 frames, not 40: they lie in memory
            self._video = (picture.source, container, stream)
        _, container, stream = self._video
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(drawn), format="rgb24")
        frame.pts, frame.time_base = round(TICKS * (picture.time or 0.0)), Fraction(1, TICKS)
        for packet in stream.encode(frame.reformat(width=stream.width, height=stream.height)):
            container.mux(packet)

    def _path(self, source: str, ending: str) -> pathlib.Path:
        path = self._folder / f"{place_of(source)}{ending}"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path


def place_of(source: str) -> pathlib.PurePath:
    """Returns where to write the output for a path in another folder: at the same relative path."""
    parts = ("up" if part == ".." else part.replace(":", "_") for part in pathlib.PurePath(source).parts)
    return pathlib.PurePath(*(part for part in parts if part != os.sep))


@functools.cache
def _font(size: int) -> Any:
    """A font with Latin, Greek and Cyrillic letters, which comes with matplotlib."""
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
