"""Crops a face from a picture by a similarity (rotation, one scale, shift) and a single warp.

A point is (x, y) in pixels; pixel centers are at integers. A box is (x, y, w, h): its first pixel and its extent in
pixels, so its edges are at x - 1/2 and x + w - 1/2; fractions are allowed. A matrix [2, 3] maps a point of the PICTURE
to the CROP (`data.augment.geometry` uses the opposite direction). Outside the picture everything is black. "Right" is
the person's own right, which is on the left in an unmirrored picture.

This module imports only NumPy and OpenCV, because processes that build data sets import it and must start fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from fer_jax.errors import UserError

Box = Sequence[float] | np.ndarray

# Positions of right eye, left eye, nose tip, right and left corner of the mouth, as shares (x, y) of the crop's side
# without a margin. This is the usual five-point template of a face of 112 pixels, divided by 112 and made symmetric (by
# less than 0.3 pixels of 112), so that a mirrored picture gives the mirrored crop.
TEMPLATE = np.array([
    (0.3427, 0.4607), (0.6573, 0.4607), (0.5000, 0.6405), (0.3697, 0.8240), (0.6303, 0.8240),
])  # fmt: skip
MARGIN = 0.0  # the chin is just inside the crop, and there is space beside the cheeks

# Rows of `TEMPLATE` for two, four and five points.
_ROWS = {2: (0, 1), 4: (0, 1, 3, 4), 5: (0, 1, 2, 3, 4)}
_IBUG = 68
_IBUG_EYES = (slice(36, 42), slice(42, 48))  # six points around each
_IBUG_MOUTH = (48, 54)
ONE_SPOT = 1e-3  # pixels: points closer together than this have no direction
LARGEST_SHRINK = 2.0  # beyond this factor bilinear interpolation skips pixels


class Crop(NamedTuple):
    """A face cropped from a picture.

    Attributes:
        image: uint8 [size, size], [size, size, 1] or [size, size, 3], with the channels of the picture.
        matrix: float64 [2, 3], from points of the picture to points of the crop; see `transform_points`.
    """

    image: np.ndarray
    matrix: np.ndarray


def crop_box(image: np.ndarray, box: Box, size: int, margin: float = 0.0) -> Crop:
    """Crops a square around the middle of a box, with the longer side of the box.

    Args:
        image: uint8 [H, W], [H, W, 1] or [H, W, 3].
        box: (x, y, w, h); it may extend beyond the picture.
        size: side of the crop in pixels.
        margin: added on each side, as a share of the square's side; negative makes the crop tighter.

    Raises:
        UserError: if the box is invalid or lies outside the picture.
    """
    x, y, w, h = checked_box(box)
    height, width = image.shape[:2]
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise UserError(
            f"the face box {_listed((x, y, w, h))} is outside its picture of {width}x{height} pixels; boxes are "
            "(x, y, width, height) in pixels of their picture"
        )
    scale = size / (max(w, h) * (1 + 2 * margin))
    middle = np.array([x + (w - 1) / 2, y + (h - 1) / 2])
    matrix = np.column_stack([np.eye(2) * scale, (size - 1) / 2 - scale * middle])
    return Crop(warp(image, matrix, size), matrix)


def align_points(
    image: np.ndarray,
    points: np.ndarray,
    size: int,
    margin: float = MARGIN,
    rise: float = 0.0,
) -> Crop:
    """Rotates, scales and shifts a face so that its points lie on `TEMPLATE`.

    Two points are matched exactly, more points by least squares.

    Args:
        image: uint8 [H, W], [H, W, 1] or [H, W, 3].
        points: [2, 2] right and left eye; [4, 2] also the right and left corner of the mouth; [5, 2] right eye, left
            eye, nose tip, right and left corner of the mouth; or the 68 landmarks of iBUG, [68, 2], of which the eyes
            and the corners of the mouth are used.
        size: side of the crop in pixels.
        margin, rise: see `template_points`.

    Raises:
        UserError: if points are not finite or all coincide.
        ValueError: if there is another number of points.
    """
    used = key_points(points)
    matrix = similarity(used, template_points(len(used), size, margin, rise))
    return Crop(warp(image, matrix, size), matrix)


def key_points(points: np.ndarray) -> np.ndarray:
    """Returns the points of a face that are used for alignment, float64 [2, 4 or 5, 2]; see `align_points`."""
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) not in (*_ROWS, _IBUG):
        raise ValueError(f"expected points [2, 4, 5 or 68, 2], got {list(points.shape)}")
    if not np.isfinite(points).all():
        raise UserError("a face has landmarks that are not finite: leave the face out, or crop it by its box")
    if len(points) != _IBUG:
        return points
    eyes = [points[part].mean(axis=0) for part in _IBUG_EYES]
    return np.stack([*eyes, *points[list(_IBUG_MOUTH)]])


def template_points(count: int, size: int, margin: float = MARGIN, rise: float = 0.0) -> np.ndarray:
    """Returns where aligned points lie in a crop, float64 [count, 2], in pixels.

    Args:
        count: 2, 4 or 5.
        size: side of the crop in pixels.
        margin: added on each side of the template, as a share of the template's side; negative makes the crop tighter.
        rise: how much higher in the crop the face lies, as a share of the crop's side.
    """
    share = (TEMPLATE[list(_ROWS[count])] + margin) / (1 + 2 * margin) - (0.0, rise)
    return share * size - 0.5  # shares start at the crop's edge, pixels at the center of the first pixel


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the similarity [2, 3] without reflection that maps `source` [N, 2] closest to `target` [N, 2].

    The least-squares solution of Umeyama (IEEE T-PAMI 1991). In the plane, rotation and scale are one complex factor,
    so its singular value decomposition reduces to a regression around the means.

    Raises:
        UserError: if the points of `source` all coincide.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    middle, goal = source.mean(axis=0), target.mean(axis=0)
    (x, y), (u, v) = (source - middle).T, (target - goal).T
    spread = float(np.sum(x * x + y * y))
    if not spread > ONE_SPOT**2:
        raise UserError(
            "a face has landmarks that all lie on one spot, as if a detector had found nothing: leave the face out, or "
            "crop it by its box"
        )
    a, b = np.sum(x * u + y * v) / spread, np.sum(x * v - y * u) / spread
    if not math.hypot(a, b) * math.sqrt(spread) > ONE_SPOT:
        raise UserError("a face has landmarks that do not look like a face: check their order")
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, goal - linear @ middle])


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns the positions in the crop of points (x, y) of the picture, [..., 2]."""
    matrix = np.asarray(matrix, np.float64)
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Returns the crop of an image by `matrix`, [size, size] with the image's channels; black outside the image.

    Interpolation is bilinear. If the crop shrinks the picture by more than `LARGEST_SHRINK`, the picture is first
    reduced by area averaging to at most 1.5 times the scale of the crop, which avoids aliasing.
    """
    linear, shift = matrix[:, :2], matrix[:, 2]
    scale = math.sqrt(abs(np.linalg.det(linear)))
    # The tolerance keeps the factor whole if the crop divides the picture: 7.999999 counts as 8.
    factor = int(1 / scale + 1e-6) if 1 / scale > LARGEST_SHRINK else 1
    # Only the visible part is processed, so a small face in a large photo costs as much as a small photo.
    edge = np.array([-0.5, size - 0.5])
    seen = np.linalg.solve(linear, np.stack(np.meshgrid(edge, edge)).reshape(2, 4) - shift[:, None])
    limits = np.array(image.shape[1::-1])
    low = np.clip(np.floor(seen.min(axis=1)) - 2 * factor, 0, limits).astype(int)
    high = np.clip(np.ceil(seen.max(axis=1)) + 2 * factor + 1, 0, limits).astype(int)
    if (high <= low).any():
        return np.zeros((size, size, *image.shape[2:]), np.uint8)
    part = np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])
    ratio = np.ones(2)
    if factor > 1:
        reduced = np.maximum(np.round((high - low) / factor), 1).astype(int)
        part = cv2.resize(part, (int(reduced[0]), int(reduced[1])), interpolation=cv2.INTER_AREA)
        ratio = reduced / (high - low)
    # A pixel p of the image is (p - low + 1/2) * ratio - 1/2 of the part: edges keep their place, unlike centers.
    inner = linear / ratio
    inner = np.column_stack([inner, shift + linear @ low + (inner.sum(axis=1) - linear.sum(axis=1)) / 2])
    crop = cv2.warpAffine(part, inner, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return crop.reshape(size, size, *image.shape[2:])


def checked_box(box: Box) -> tuple[float, float, float, float]:
    """Returns a box as four floats.

    Raises:
        UserError: unless it has four finite numbers and a positive width and height.
    """
    values = np.asarray(box, np.float64).ravel()
    if len(values) != 4 or not np.isfinite(values).all() or values[2] <= 0 or values[3] <= 0:
        raise UserError(
            f"{_listed(values)} is not a face box: give (x, y, width, height) in pixels, with positive sides"
        )
    x, y, w, h = values.tolist()
    return x, y, w, h


def _listed(values: Any) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"
