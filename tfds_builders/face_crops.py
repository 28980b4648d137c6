"""Makes squares of pictures: an aligned face, the square around a box, or the whole picture with black bars."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from fer_jax.faces.alignment import checked_box, crop_box
from fer_jax.faces.crops import crop_face
from fer_jax.faces.detection import Detector, Face, choose, overlap
from fer_jax.faces.pictures import BadPicture, copied, encoded, pixels
from fer_jax.faces.tracking import OVERLAP

Box = tuple[float, float, float, float]  # x, y, width, height in pixels, as in fer_jax.faces.alignment
NO_FACE = "no face was found, so its middle is stored"
BARRED = "put between black bars, as it is not square"


def cropped(
    path: str, channels: int, options: Any, detector: Detector | None, box: Box | None = None
) -> tuple[dict[str, Any], Sequence[str]]:
    """Returns the stored `image` of a photo (and `no_face`), and notes.

    Args:
        path: of the photo.
        channels: of the stored picture, 1 or 3.
        options: `crop` is 'faces' (see `face_or_square`), 'boxes' (the square around the box, with `margin`), 'square'
            (the same without, or the middle if there is no box), 'whole' or 'none' (with black bars). Without `crop`
            the picture is a face already, and resized if it has another size.
        detector: of faces, for 'faces'.
        box: of the face, if the data set has it.

    Raises:
        BadPicture: as `pictures.pixels`, and for a box outside of the photo.
        UserError: for a box without a positive width and height.
    """
    size, crop = options.size, getattr(options, "crop", "")
    if not crop:
        file, notes = resized(path, channels, None, size)
        return {"image": file}, notes
    photo, notes = pixels(path, channels)
    height, width = photo.shape[:2]
    if box is not None:
        check_box(box, photo)
    if crop == "faces":
        assert detector is not None  # `searches_faces` says so
        image, found = face_or_square(photo, size=size, margin=options.margin, detector=detector, box=box)
        return {"image": stored(image), "no_face": not found}, notes if found else (*notes, NO_FACE)
    if crop == "boxes":
        assert box is not None
        return {"image": stored(crop_box(photo, box, size, options.margin).image)}, notes
    image = square(photo, size, box) if crop == "square" else crop_box(photo, (0, 0, width, height), size).image
    return {"image": stored(image)}, notes


def resized(path: str, channels: int, edition: tuple[int, int] | None, size: int) -> tuple[io.BytesIO, tuple[str, ...]]:
    """Returns a picture as a square of `size` (0: as it is) and what was converted; one of that size is copied.

    Args:
        path: of the picture.
        channels: 1 or 3.
        edition: (height, width) that it must have; None takes any, and puts one that is not square between black bars.
        size: side of the square.

    Raises:
        BadPicture: as `pictures.copied`.
    """
    whole = copied(path, channels, edition)
    if not size or whole.size == (size, size):
        return whole.file(), whole.notes
    image = ImageOps.pad(Image.open(whole.file()), (size, size), Image.Resampling.BILINEAR)  # antialiased in Pillow
    barred = (BARRED,) if whole.size[0] != whole.size[1] else ()
    return stored(np.asarray(image)), (*whole.notes, *barred)


def face_or_square(
    photo: np.ndarray, *, size: int, margin: float, detector: Detector, box: Box | None = None
) -> tuple[np.ndarray, bool]:
    """Returns an aligned face, uint8 [size, size, C], and True; the middle of the photo, and False, if there is none.

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


def check_box(box: Box, photo: np.ndarray) -> None:
    """Raises unless a box has positive sides and lies in its photo, at least in part."""
    x, y, w, h = checked_box(box)
    height, width = photo.shape[:2]
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        told = ", ".join(f"{value:g}" for value in box)
        raise BadPicture(f"has {width}x{height} pixels, and its box ({told}) is outside: correct the box")


def stored(image: np.ndarray) -> io.BytesIO:
    """Returns a crop as an open JPEG file, or PNG if it is gray."""
    return io.BytesIO(encoded(image, "JPEG" if image.shape[-1] == 3 else "PNG"))
