"""Crops faces of pictures and clips, in the same way for training data and prediction.

    crop_face(photo, choose(detector(photo)), 112)   the largest face of a picture
    crop_box(photo, box, 112)                        for data sets with boxes
    align_points(photo, landmarks, 112)              for data sets with landmarks
    for time, crop, found in faces_of_clip(video.read(path), detector, 112): ...

`alignment` contains the geometry and its conventions, `detection` the detectors, `tracking` the tracker of clips.
Nothing here imports JAX, so that processes that build data sets start fast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np

from fer_jax.errors import UserError
from fer_jax.faces.alignment import MARGIN, Crop, align_points, crop_box
from fer_jax.faces.detection import Detector, Face
from fer_jax.faces.tracking import Tracker

# Side and middle of an aligned crop in sides of the cascade's box, where it finds no eyes: between the medians over
# FER-2013's training pictures without (1.25) and with eyes found (1.39), aligned by YuNet's five points. The middle of
# the crop is above that of the box.
BOX_SIDE = 1.3
BOX_RISE = 0.05
# (margin, rise) of crops that are like the pictures of a data set whose faces others have cropped: from the medians of
# YuNet's points on 674 training pictures of FER-2013.
CROPPED_LIKE = {"fer2013": (-0.075, 0.05), "ferplus": (-0.075, 0.05)}


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


def faces_of_clip(
    frames: Iterable[tuple[float, np.ndarray]], detector: Detector, size: int, margin: float = MARGIN
) -> Iterator[tuple[float, np.ndarray, bool]]:
    """Tracks one face through a clip, beginning with the largest; yields every frame once and in order.

    Args:
        frames: (time in seconds, image uint8 [H, W, C]), as yielded by `video.read`.
        detector: of faces.
        size, margin: see `crop_face`.

    Yields:
        (time in seconds, crop uint8 [size, size, C], whether it shows the face). Without the face the crop is black.
    """
    tracker = Tracker()
    for time, image in frames:
        face = tracker(detector(image), time)
        crop = None if face is None else crop_face(image, face, size, margin)
        black = np.zeros((size, size, *image.shape[2:]), np.uint8)
        yield time, black if crop is None else crop.image, crop is not None
