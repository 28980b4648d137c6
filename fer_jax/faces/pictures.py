"""Reads picture files: each is checked, and copied byte for byte if nothing has to change.

A stored picture is upright, has 8 bits a channel, and one channel (gray) or three (RGB). A file like that is copied.
Others are converted, and a note says so: CMYK, 16 bits, floating point, a palette, transparency, gray where RGB is
stored or the other way round, and pictures that an EXIF field turns. One that cannot be used raises `BadPicture`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from fer_jax.errors import first_line
from fer_jax.parsing import Unreadable, read_bytes

MOST_PIXELS = 64_000_000
MOST_BYTES = 1 << 29
LARGEST_SIDE = 1024  # of a crop
COPIED = ("JPEG", "PNG")  # formats that TFDS decodes
ORIENTATION = 0x0112  # the EXIF field; 1 is upright
MODES = {1: "L", 3: "RGB"}
JPEG_QUALITY = 95
EXTENSIONS = frozenset(
    [
        *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff"),
        *(f".{form}" for form in ("avif", "webp") if features.check(form)),
    ]
)
HEIC = frozenset({".heic", ".heif"})  # as phones write them; read with the extra [heic]
with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()
    EXTENSIONS |= HEIC
TIFF_BITS, TIFF_FORMAT = 258, 339  # tags: bits per sample, and what they are
SIGNED = 2  # a value of TIFF_FORMAT
NEAR = 16  # gray levels; a converted picture with fewer than FEW of its values farther from black or white is noted
FEW = 0.01


class BadPicture(Exception):
    """A picture or video that cannot be used; its text says what is wrong and what to do."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """A picture as it is stored.

    Attributes:
        data: an encoded file, JPEG or PNG.
        size: (height, width).
        notes: on conversions, in a few words each; () if the file was copied.
    """

    data: bytes
    size: tuple[int, int]
    notes: tuple[str, ...] = ()

    def file(self) -> io.BytesIO:
        """An open file, which TFDS stores unchanged (it would import TensorFlow to encode an array)."""
        return io.BytesIO(self.data)


def copied(path: str | os.PathLike[str], channels: int, size: tuple[int, int] | None = None) -> Stored:
    """Reads a picture that is stored whole: the file itself if possible, else a PNG.

    Args:
        path: of the file.
        channels: 1 or 3, of the stored picture.
        size: (height, width) that it must have; None accepts any.

    Raises:
        BadPicture: for a file that is empty, broken, animated, far too large, or of another size.
    """
    data = _read(path)
    image, notes = _opened(data, channels)
    upright = ImageOps.exif_transpose(image)
    found = (upright.height, upright.width)
    if size is not None and found != size:
        raise BadPicture(
            f"has {found[1]}x{found[0]} pixels, and this edition {size[1]}x{size[0]}: it belongs to another edition"
        )
    if not notes and image.format in COPIED:
        return Stored(data, found)
    array = _pixels(upright, channels, _white(image))
    return Stored(encoded(array, "PNG"), found, (*notes, *_featureless(array)) if notes else ())


def pixels(path: str | os.PathLike[str], channels: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reads a picture to be cropped: uint8 [H, W, channels], upright, and notes on conversions.

    Raises:
        BadPicture: as `copied`.
    """
    image, notes = _opened(_read(path), channels)
    array = _pixels(ImageOps.exif_transpose(image), channels, _white(image))
    return array, (*notes, *_featureless(array)) if notes else ()


def encoded(image: np.ndarray, form: str) -> bytes:
    """Encodes uint8 [H, W, 1 | 3] as 'PNG', or as 'JPEG' of quality 95 without subsampling of color."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": JPEG_QUALITY, "subsampling": 0} if form == "JPEG" else {}
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, form, **options)
    return buffer.getvalue()


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name; hidden files ('._a.jpg') are not."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        data = read_bytes(path, "copy it again", MOST_BYTES)
    except Unreadable as error:
        raise BadPicture(error.what) from error
    if not data:
        raise BadPicture("is empty: copy it again")
    return data


def _opened(data: bytes, channels: int) -> tuple[Image.Image, tuple[str, ...]]:
    """Decodes a file in full; returns it with notes on what has to be converted."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's on size and on damaged EXIF fields; the limit here is ours
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # a photo and its preview, as phones write
                raise BadPicture(f"is animated ({frames} pictures): save one of them as PNG")
            image.load()
            turned = image.getexif().get(ORIENTATION, 1) not in (0, 1)  # some cameras write 0
    except BadPicture:
        raise
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp":
            raise BadPicture("is HEIC, or a video: pip install 'fer_jax[heic]', or save it as JPEG") from None
        raise BadPicture("is not a picture, or of a kind that is not read: copy it again, or save it as PNG") from None
    except Image.DecompressionBombError:
        raise BadPicture(f"has more than the {MOST_PIXELS:,} pixels allowed: shrink it") from None
    except Exception as error:  # Pillow's readers raise many types for damaged files
        raise BadPicture(f"is damaged ({first_line(error)}): copy it again") from error
    notes = ["turned upright as its EXIF field says"] if turned else []
    wanted = "gray" if channels == 1 else "RGB"
    if image.mode not in ("L", "RGB") or "transparency" in image.info or _deep(data, image):
        notes.append(f"converted from {_mode(image, data)} to 8 bits of {wanted}")
    elif image.mode != MODES[channels]:
        notes.append(f"converted from {_mode(image, data)} to {wanted}")
    return image, tuple(notes)


def _white(image: Image.Image) -> float | None:
    """Returns the value of white in a picture of more than 8 bits by the format of its file; None if that is unknown.

    It must not depend on the pixels: a dark picture stays dark. White is 1 in floating point. Pillow scales PNM files
    to 16 bits itself.
    """
    if image.mode == "F":
        return 1.0
    if image.format != "TIFF":
        return 65535.0
    bits, kind = (_tag(image, tag) for tag in (TIFF_BITS, TIFF_FORMAT))
    return 2.0 ** (bits - (kind == SIGNED)) - 1 if bits <= 16 else None


def _tag(image: Image.Image, tag: int) -> int:
    return int(np.max(image.tag_v2.get(tag, 1)))  # pyright: ignore[reportAttributeAccessIssue]


def _featureless(image: np.ndarray) -> tuple[str, ...]:
    """Returns a note if a converted picture is nearly black or white, such as one with 12 bits in a file of 16."""
    for name, off in (("black", image > NEAR), ("white", image < 255 - NEAR)):
        if off.mean() < FEW:
            return (f"nearly {name} after conversion",)
    return ()


def _pixels(image: Image.Image, channels: int, white: float | None) -> np.ndarray:
    mode = MODES[channels]
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        if white is None:
            raise BadPicture("has 32 bits a pixel and does not say which value is white: save it with 8 or 16 bits")
        if not (values.min() >= 0 and values.max() <= white * 1.001):  # also NaN
            raise BadPicture(
                f"has values from {values.min():g} to {values.max():g}, where its format goes from 0 to {white:g}: "
                "save it with 8 bits"
            )
        image = Image.fromarray(np.minimum(np.floor(values / white * 255 + 0.5), 255).astype(np.uint8))
    elif "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array[..., None] if channels == 1 else array


def _deep(data: bytes, image: Image.Image) -> bool:
    """Whether a PNG or TIFF has more than 8 bits a channel, which Pillow hides if there is color."""
    if image.format == "TIFF":
        return _tag(image, TIFF_BITS) > 8
    return image.format == "PNG" and data[24] == 16


def _mode(image: Image.Image, data: bytes) -> str:
    if image.mode == "F":
        return "floating point"
    if image.mode.startswith("I") or _deep(data, image):
        return "more than 8 bits"
    names = {"1": "1 bit", "L": "gray", "P": "a palette", "LA": "gray with transparency"}
    clear = "transparency" in image.info or image.mode == "RGBA"
    return names.get(image.mode, "RGB with transparency" if clear else image.mode)
