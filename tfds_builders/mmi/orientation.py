"""How the frontal face lies in MMI's videos: some are turned by 90 degrees, some show a profile beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fer_jax.faces.crops import Detector

Transform = Callable[[np.ndarray], np.ndarray]
ROTATIONS = ("auto", "never", "clockwise")


def upright(image: np.ndarray) -> np.ndarray:
    return image


def clockwise(image: np.ndarray) -> np.ndarray:
    """Turns an image [H, W, C] by 90 degrees to the right, as the older frontal videos need it."""
    return np.ascontiguousarray(np.rot90(image, -1))


def left_half(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, : image.shape[1] // 2])


def right_half(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, image.shape[1] // 2 :])


def choose_transform(images: Sequence[np.ndarray], rotate: str, both_views: bool, detector: Detector) -> Transform:
    """Returns what brings the frontal face of a video upright and alone into the picture.

    The detector knows upright frontal faces only: whichever way it finds one in more of the pictures is the right one.

    Args:
        images: a few of the video's frames.
        rotate: one of `ROTATIONS`; 'auto' turns a video where the detector finds more faces so.
        both_views: whether each frame shows the face from the front and from the side, next to each other.
        detector: of faces.
    """
    if both_views:
        ways = [left_half, right_half]
    elif rotate == "auto":
        ways = [upright, clockwise]
    else:
        return clockwise if rotate == "clockwise" else upright
    return max(ways, key=lambda way: _faces(images, way, detector))  # the first of equals


def _faces(images: Sequence[np.ndarray], way: Transform, detector: Detector) -> tuple[int, float]:
    """Returns in how many images a face is found, and how surely in all."""
    scores = [max((face.score for face in detector(way(image))), default=None) for image in images]
    found = [score for score in scores if score is not None]
    return len(found), sum(found)
