"""Detects, tracks, aligns and crops faces of pictures and clips, in the same way for training data and prediction.

    find_face(photo, size=112)                       the largest face of a picture
    crop_box(photo, box, size=112)                   for data sets with boxes
    align_points(photo, landmarks, size=112)         for data sets with landmarks
    for part in faces_of_clip(video.read(path), size=112): ...

`alignment` contains the geometry and its conventions, `detection` the detectors, `tracking` the tracker of clips.
Nothing here imports JAX, so that processes that build data sets start fast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from fer_jax.errors import UserError
from fer_jax.faces.alignment import (
    MARGIN,
    TEMPLATE,
    Box,
    Crop,
    align_points,
    check_image,
    crop_box,
    template_points,
    transform_points,
)
from fer_jax.faces.detection import (
    Detector,
    Face,
    Haar,
    YuNet,
    best_detector,
    choose,
    detected,
)
from fer_jax.faces.tracking import Tracker

__all__ = [
    "MARGIN", "TEMPLATE", "ClipFaces", "Crop", "Detector", "Face", "Found", "Haar", "Tracker", "YuNet", "align_points",
    "choose", "crop_box", "crop_face", "faces_of_clip", "find_face", "template_points",
    "transform_points",
]  # fmt: skip

# Side and middle of an aligned crop in sides of the cascade's box, where it finds no eyes: between the medians over
# FER-2013's training pictures without (1.25) and with eyes found (1.39), aligned by YuNet's five points. The middle of
# the crop is above that of the box.
BOX_SIDE = 1.3
BOX_RISE = 0.05
# (margin, rise) of crops that are like the pictures of a data set whose faces others have cropped: from the medians of
# YuNet's points on 674 training pictures of FER-2013.
CROPPED_LIKE = {"fer2013": (-0.075, 0.05), "ferplus": (-0.075, 0.05)}
BATCH = 64


class Found(NamedTuple):
    """A face and its crop; see `Face` and `Crop`."""

    face: Face
    image: np.ndarray
    matrix: np.ndarray


class ClipFaces(NamedTuple):
    """B successive frames of a clip. A frame without a face has an image of zeros.

    Attributes:
        image: uint8 [B, size, size], [B, size, size, 1] or [B, size, size, 3], with the channels of the frames.
        time: float64 [B], seconds.
        mask: bool [B], whether the frame has the face.
        box: float32 [B, 4], the smoothed box (x, y, w, h) in pixels of the frame; zeros without a face.
        matrix: float32 [B, 2, 3], from points of the frame to points of the crop; zeros without a face.
        track: int32 [B], the number of the track, which changes at every scene cut; -1 without a face.
    """

    image: np.ndarray
    time: np.ndarray
    mask: np.ndarray
    box: np.ndarray
    matrix: np.ndarray
    track: np.ndarray


def crop_face(
    image: np.ndarray, face: Face, size: int, margin: float = MARGIN, rise: float = 0.0, by_box: bool = False
) -> Crop | None:
    """Aligns a face by its points; without points, crops an upright square in the place that points would give it.

    Returns None where the points cannot be those of a face, and for a box outside of the picture: there is no face.

    Args:
        image: the picture of the face, uint8 [H, W], [H, W, 1] or [H, W, 3].
        face: with two or five points, or none.
        size: side of the crop in pixels.
        margin, rise: see `template_points`.
        by_box: crop the square around the box instead, as `crop_box`, for a model that has learned from such crops.
    """
    template_points(2, size, margin)  # checks size and margin
    with contextlib.suppress(UserError):
        if by_box:
            return crop_box(image, face.box, size, margin)
        if face.points is not None:
            return align_points(image, face.points, size, margin, rise=rise)
        x, y, w, h = face.box
        side = BOX_SIDE * (1 + 2 * margin)  # of the crop, in sides of the box
        lower = (side * rise - BOX_RISE) * max(w, h)
        return crop_box(image, (x, y + lower, w, h), size, (side - 1) / 2)
    return None


def find_face(
    image: np.ndarray,
    *,
    size: int,
    margin: float = MARGIN,
    near: Box | None = None,
    detector: Detector | None = None,
) -> Found | None:
    """Returns one face of a picture with its crop, or None if no face is found.

    Args:
        image: uint8 [H, W], [H, W, 1] or [H, W, 3].
        size, margin: see `crop_face`.
        near: selects one of several faces, see `choose`; by default the largest.
        detector: by default `best_detector()`.
    """
    template_points(2, size, margin)
    face = choose((detector or best_detector())(image), near)
    crop = None if face is None else crop_face(image, face, size, margin)
    return None if face is None or crop is None else Found(face, *crop)


def faces_of_clip(
    frames: Iterable[tuple[float, np.ndarray]],
    *,
    size: int,
    margin: float = MARGIN,
    detector: Detector | None = None,
    tracker: Tracker | None = None,
    batch: int = BATCH,
    workers: int = 1,
) -> Iterator[ClipFaces]:
    """Tracks one face through a clip and yields its crops, with every frame once and in order.

    Memory is bounded by `batch` crops and 3 * `workers` frames for clips of any length.

    Args:
        frames: (time in seconds, image), as yielded by `video.read`. Frames may differ in size but not in channels.
        size, margin: see `crop_face`.
        detector: by default `best_detector()`.
        tracker: a new one for each clip; by default it starts with the largest face.
        batch: frames per part; the last part may have fewer.
        workers: threads for detection.
    """
    template_points(2, size, margin)
    if batch < 1 or workers < 1:
        raise ValueError(f"batch and workers must be at least 1, not {batch} and {workers}")
    return _parts(frames, size, margin, detector or best_detector(), tracker or Tracker(), batch, workers)


def _parts(
    frames: Iterable[tuple[float, np.ndarray]],
    size: int,
    margin: float,
    detector: Detector,
    tracker: Tracker,
    batch: int,
    workers: int,
) -> Iterator[ClipFaces]:
    part, filled, channels = None, 0, None
    for (time, image), faces in detected(frames, detector, workers, lambda frame: frame[1]):
        check_image(image)
        if channels is None:
            channels = image.shape[2:]
        if image.shape[2:] != channels:
            raise ValueError(f"frames of one clip have channels {list(channels)} and {list(image.shape[2:])}")
        if part is None:
            part, filled = _empty(batch, size, channels), 0
        part.time[filled] = time
        face = tracker(faces, time)
        if face is not None and (crop := crop_face(image, face, size, margin)) is not None:
            part.image[filled], part.matrix[filled] = crop
            part.mask[filled], part.box[filled], part.track[filled] = True, face.box, tracker.track
        filled += 1
        if filled == batch:
            yield part
            part = None
    if part is not None:
        yield ClipFaces(*(field[:filled] for field in part))


def _empty(count: int, size: int, channels: tuple[int, ...]) -> ClipFaces:
    return ClipFaces(
        np.zeros((count, size, size, *channels), np.uint8),
        np.zeros(count, np.float64),
        np.zeros(count, bool),
        np.zeros((count, 4), np.float32),
        np.zeros((count, 2, 3), np.float32),
        np.full(count, -1, np.int32),
    )
