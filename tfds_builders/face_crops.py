"""Makes squares of photos: an aligned face, the middle, or the whole photo with black bars."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fer_jax.errors import UserError, nearest
from fer_jax.faces.crops import crop_box, crop_face
from fer_jax.faces.detection import Detector, Face, choose, overlap
from fer_jax.faces.pictures import LARGEST_SIDE, BadPicture, encoded, pixels
from fer_jax.faces.tracking import OVERLAP
from tfds_builders.picture_builder import Options, picture_feature

Box = tuple[float, float, float, float]  # x, y, width, height in pixels, as in fer_jax.faces.alignment
RGB = 3
NO_FACE = "no face was found, so its middle is stored"


@dataclasses.dataclass(frozen=True)
class CropOptions(Options):
    """
    Attributes:
        crop: 'faces', found and aligned as for prediction; 'boxes', the squares around the data set's boxes; 'whole',
            the photo with black bars; or another value of the builder's.
        margin: around the face on each side, as a share of the side of the crop.
        yunet: path of the ONNX file of the detector YuNet; '' fetches it (see `detection.best_detector`).
    """

    crop: str = "faces"
    margin: float = 0.0
    yunet: str = ""


def check_crop(dataset: str, options: CropOptions, crops: Sequence[str], as_is: Sequence[str] = ()) -> None:
    """Raises unless the options are valid.

    Args:
        dataset: its name, for messages.
        options: to be checked.
        crops: values of `crop`.
        as_is: those of `crops` that keep the size of the picture, so that `size` must be 0.
    """
    if options.crop not in crops:
        raise UserError(f"{dataset} has no crop '{options.crop}': {nearest(options.crop, crops)}")
    if options.crop in as_is:
        if options.size:
            raise UserError(f"{dataset}: crop={options.crop} keeps the size of the picture: leave out size")
    elif options.size < 0:
        raise UserError(f"{dataset}: option size={options.size} is below 0")
    elif options.size < 1:
        raise UserError(f"{dataset}: crop={options.crop} needs a size in pixels: add --option=size=112")
    if options.size > LARGEST_SIDE:
        raise UserError(f"{dataset}: option size={options.size} must be {LARGEST_SIDE} pixels at most")
    if not (-0.5 < options.margin <= 2):
        raise UserError(f"{dataset}: margin={options.margin} must be a share of the face above -0.5, 2 at most")


def face_features(options: CropOptions, classes: Sequence[str]) -> dict[str, Any]:
    """Returns the features of `cropped` and the label."""
    return {
        "image": picture_feature((options.size, options.size), RGB),
        "label": tfds.features.ClassLabel(names=list(classes)),
        **({"no_face": np.bool_} if options.crop == "faces" else {}),
    }


def cropped(
    path: str, options: CropOptions, detector: Detector | None, box: Box | None = None
) -> tuple[dict[str, Any], Sequence[str]]:
    """Returns the stored `image` of a photo (and `no_face`), and notes.

    Args:
        path: of the photo.
        options: `crop` is 'boxes' (the square around the box), 'faces' (see `face_or_square`) or 'whole'.
        detector: of faces, for 'faces'.
        box: of the face, if the data set has it.

    Raises:
        BadPicture: as `pictures.pixels`, and for a box outside of the photo.
    """
    photo, notes = pixels(path, RGB)
    if box is not None:
        check_box(box, photo)
    size, margin = options.size, options.margin
    if options.crop == "faces":
        assert detector is not None  # `searches_faces` says so
        image, found = face_or_square(photo, size=size, margin=margin, detector=detector, box=box)
        return {"image": stored(image), "no_face": not found}, notes if found else (*notes, NO_FACE)
    if options.crop == "whole":
        return {"image": stored(whole(photo, size))}, notes
    assert box is not None
    return {"image": stored(crop_box(photo, box, size, margin).image)}, notes


def face_or_square(
    photo: np.ndarray, *, size: int, margin: float, detector: Detector, box: Box | None = None
) -> tuple[np.ndarray, bool]:
    """Returns an aligned face, uint8 [size, size, C], and True; the middle of the photo, and False, if there is none.

    The crop is the one of `fer_jax.faces.crops.find_face`.

    Args:
        photo: uint8 [H, W, 1 | 3].
        size: side of the crop.
        margin: see `CropOptions`.
        detector: of faces.
        box: of the face, if the data set has it; by default the largest face. If the detector finds nothing there, the
            box itself is the face.
    """
    face = choose(detector(photo), box)
    if box is not None and (face is None or overlap(face.box, box) < OVERLAP):
        face = Face(box, 0.0)
    crop = None if face is None else crop_face(photo, face, size, margin)
    return (square(photo, size), False) if crop is None else (crop.image, True)


def square(photo: np.ndarray, size: int, box: Box | None = None) -> np.ndarray:
    """Returns the square around a box, by default the largest one in the middle of the photo."""
    if box is None:
        height, width = photo.shape[:2]
        side = min(height, width)
        box = ((width - side) / 2, (height - side) / 2, side, side)
    return crop_box(photo, box, size).image


def whole(photo: np.ndarray, size: int) -> np.ndarray:
    """Returns the whole photo in a square with black bars."""
    height, width = photo.shape[:2]
    return crop_box(photo, (0, 0, width, height), size).image


def check_box(box: Box, photo: np.ndarray) -> None:
    """Raises `BadPicture` for a box outside of its photo."""
    x, y, w, h = box
    height, width = photo.shape[:2]
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        told = ", ".join(f"{value:g}" for value in box)
        raise BadPicture(f"has {width}x{height} pixels, and its box ({told}) is outside: correct the box")


def stored(image: np.ndarray) -> io.BytesIO:
    """Returns a crop as an open JPEG file, or PNG if it is gray."""
    return io.BytesIO(encoded(image, "JPEG" if image.shape[-1] == 3 else "PNG"))
