"""The facial points that a method uses, from 68 landmarks in iBUG order or from a template.

'face24' (Li et al., IEEE T-IP 2019, and its release): 16 landmarks around brows, eyes, nose and mouth, four midpoints
of eyes and brows, four places on the cheeks. Its offsets are pixels of a face crop of 256; here they grow and shrink
with the stored image. The release rounds to whole pixels of its input of 224; here points stay fractions, because they
still have to move with the augmentation.

'face68': the landmarks themselves, NaN where there are none.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fer_jax.errors import UserError, say_once
from fer_jax.parsing import read_arrays

LANDMARKS = "landmarks68.npz"  # beside prepared data: what `python -m tfds_builders landmarks` found in them
CROP = 256.0  # side of the face crop that the offsets are for
CHEEK = 16.0  # by how much points 23 and 24 lie above the corners of the mouth: the script; its lists have 10
BROWS = (-2.0, -10.0, -10.0, -2.0)  # points 1 to 4 above the brows: the release's script as it runs, not as it reads
TEMPLATE_CROP = 224.0

# iBUG numbers, from 1: two for a point halfway between.
_FACE24 = (
    (19, 19), (22, 22), (23, 23), (26, 26), (39, 39), (37, 37), (44, 44), (46, 46), (28, 28), (30, 30), (49, 49),
    (51, 51), (53, 53), (55, 55), (59, 59), (57, 57), (20, 38), (25, 45), (41, 42), (47, 48), (18, 59), (27, 57),
)  # fmt: skip
_CORNERS = (10, 13)  # of the mouth: points 11 and 14, beside which points 23 and 24 lie

# The first 22 of an average face, in pixels of 224, before the brows are raised: medians over FER-2013's training split
# (`template` of `python -m benchmarks.faces --out results/faces.json`) and means over 8,573 aligned faces of RAF-DB.
TEMPLATES = {
    "": np.array([
        (44.9, 57.8), (92.8, 63.6), (125.4, 63.6), (173.2, 56.6), (74.1, 79.9), (51.9, 85.8), (145.2, 79.9),
        (167.4, 84.6), (109.1, 83.4), (110.2, 114.9), (75.2, 172.1), (100.9, 162.8), (120.8, 161.6), (145.2, 172.1),
        (99.8, 189.6), (120.8, 189.6), (61.2, 67.7), (157.5, 66.5), (67.1, 90.4), (152.2, 89.8), (66.5, 128.9),
        (154.0, 127.8),
    ], np.float32),
    "rafdb": np.array([
        (26, 48), (88, 54), (128, 54), (191, 48), (63, 72), (34, 77), (155, 72), (183, 78), (109, 74), (109, 106),
        (62, 166), (97, 155), (122, 155), (157, 166), (96, 186), (123, 186), (47, 47), (170, 47), (55, 78), (162, 78),
        (53, 123), (165, 122),
    ], np.float32),
}  # fmt: skip

# For each point the one that stands in its place on a mirrored face.
MIRROR = {
    "face24": tuple(i - 1 for i in (
        4, 3, 2, 1, 7, 8, 5, 6, 9, 10, 14, 13, 12, 11, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23,
    )),
    "face68": (
        *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37,
        36, 41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
    ),
}  # fmt: skip

MEASURED = ("face68",)  # kinds that are the landmarks themselves: of frames of clips too, and without a template
LEFT_OUT = {"face24": "get the points of an average face", "face68": "cannot be measured"}
MISSING_BELOW = 1e-6  # landmarks that all lie on one spot say that no face was found


def face_points(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the 24 points [N, 24, 2], (x, y) in pixels, of landmarks [N, 68, 2] of faces that fill the image.

    Args:
        landmarks: in iBUG order.
        height, width: of the image.
    """
    return _with_offsets(face_places(landmarks), height, width)


def face_places(landmarks: np.ndarray) -> np.ndarray:
    """Returns the first 22 points [N, 22, 2] of landmarks [N, 68, 2] before the brows are raised."""
    first, second = (np.array([pair[k] - 1 for pair in _FACE24]) for k in (0, 1))
    return (landmarks[:, first] + landmarks[:, second]) / 2


def face_template(height: int, width: int, dataset: str = "") -> np.ndarray:
    """Returns the 24 points [24, 2] of an average face of a data set, for faces without landmarks."""
    template = TEMPLATES.get(dataset.partition("/")[0], TEMPLATES[""])
    places = template * np.array([width, height], np.float32) / TEMPLATE_CROP
    return _with_offsets(places[None], height, width)[0]


def _with_offsets(places: np.ndarray, height: int, width: int) -> np.ndarray:
    """Raises the brows of points [N, 22, 2] and adds the two beside the mouth."""
    scale = np.array([width, height], np.float32) / CROP
    corners = places[:, list(_CORNERS)]
    beside = corners + np.array([[-16.0, -CHEEK], [16.0, -CHEEK]], np.float32) * scale
    places = places.copy()
    places[:, :4, 1] += np.array(BROWS, np.float32) * scale[1]
    return np.concatenate([places, beside], axis=1).astype(np.float32)


def stored_landmarks(folder: Any, split: str, digest: str) -> dict[str, np.ndarray]:
    """Returns `landmarks` float32 [N, 68, 2] of a split out of `LANDMARKS`, NaN where none were found; {} without it.

    Args:
        folder: of the prepared data.
        split: its pictures are the rows, of clips all their frames.
        digest: of the split (see `records.data_digest`).

    Raises:
        UserError: if the file is of other data, or damaged.
    """
    path = pathlib.Path(folder) / LANDMARKS
    if not path.exists():
        return {}
    again = f"delete it, then run `python -m tfds_builders landmarks` again for the data in {folder}"
    arrays = read_arrays(path, again)
    points, found = (arrays.get(f"{split}/{name}") for name in ("points", "found"))
    same = str(arrays.get(f"{split}/data_digest")) == digest
    if (
        points is None
        or found is None
        or points.shape != (len(found), 68, 2)
        or (found.any() and not np.ptp(points[found], axis=1).max() > 1)  # fractions of the picture
        or not same
    ):
        raise UserError(f"{path} has no landmarks, in pixels, of the data beside it, split {split}: {again}")
    return {"landmarks": np.where(found[:, None, None], points, np.float32(np.nan))}


def attach_points(arrays: Mapping[str, np.ndarray], *, kind: str, dataset: str, split: str) -> dict[str, np.ndarray]:
    """Adds `points` float32 [N, 24 or 68, 2], (x, y) in pixels of the stored image.

    Faces without landmarks (none in the data set, not finite, or all on one spot, where a detector found nothing) get
    the 24 points of the template, or 68 NaN points.

    Args:
        arrays: fields of the data set.
        kind: 'face24' or 'face68'.
        dataset: selects the average face that replaces missing landmarks.
        split: for messages; '' for faces that are not part of a data set.

    Raises:
        UserError: for 'face68' without any landmarks.
    """
    name = f"{dataset}, split {split}"
    height, width = arrays["image"].shape[1:3]
    template = face_template(height, width, dataset)
    landmarks = arrays.get("landmarks")
    if landmarks is None and kind in MEASURED:
        raise UserError(
            f"config.data.points='{kind}': {name}, has no landmarks; `python -m tfds_builders landmarks {dataset}` "
            "finds them"
        )
    if landmarks is None:
        say_once(
            f"{dataset} has no landmarks: every face gets the same {len(template)} points, those of an average face"
            + (f"; `python -m tfds_builders landmarks {dataset}` finds them" if split else "")
        )
        return {**arrays, "points": np.repeat(template[None], len(arrays["image"]), axis=0)}
    finite = np.asarray(np.isfinite(landmarks).all(axis=(1, 2)))
    landmarks = np.where(finite[:, None, None], landmarks, 0).astype(np.float32)
    there = finite & (np.ptp(landmarks, axis=1).max(axis=-1) > MISSING_BELOW)
    if missing := int((~there).sum()):
        say_once(f"{name}: {missing} of {len(there)} faces have no landmarks and {LEFT_OUT[kind]}")
    if kind in MEASURED:
        return {**arrays, "points": np.where(there[:, None, None], landmarks, np.float32(np.nan))}
    points = face_points(landmarks, height, width)
    return {**arrays, "points": np.where(there[:, None, None], points, template)}
