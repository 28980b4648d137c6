"""The orientation of MMI's videos: some are turned by 90 degrees, some show a profile beside the frontal face."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fer_jax.faces.detection import Detector

Transform = Callable[[np.ndarray], np.ndarray]
ROTATIONS = ("auto", "never", "clockwise")


def upright(image: np.ndarray) -> np.ndarray:
    return image


def clockwise(image: np.ndarray) -> np.ndarray:
    """Turns an image [H, W, C] by 90 degrees to the right, which the older frontal videos need."""
    return np.ascontiguousarray(np.rot90(image, -1))


def left_half(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, : image.shape[1] // 2])


def right_half(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, image.shape[1] // 2 :])


def choose_transform(images: Sequence[np.ndarray], rotate: str, both_views: bool, detector: Detector) -> Transform:
    """Returns the transform that makes the frontal face of a video upright and alone in the picture.

    The detector finds only upright frontal faces, so the right transform is the one with which it finds more of them.

    Args:
        images: a few of the video's frames.
        rotate: one of `ROTATIONS`.
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
    """Returns the number of images in which a face is found, and the sum of their scores."""
    scores = [max((face.score for face in detector(way(image))), default=None) for image in images]
    found = [score for score in scores if score is not None]
    return len(found), sum(found)
