"""Picture files as users have them: checked one by one, copied byte for byte where nothing has to change.

A stored picture is upright, has 8 bits a channel, and one channel (gray) or three (RGB). A file that is so already is
copied. One that is CMYK, has 16 bits, a palette or transparency, is gray where RGB is stored or the other way round, or
is turned by its EXIF field is converted, and the note beside it says so. One that cannot be used raises `BadPicture`.
"""

from __future__ import annotations

import dataclasses
import io
import os
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tfds_builders.problems import BadPicture

MOST_PIXELS = 64_000_000
LARGEST_SIDE = 1024  # of a crop
COPIED = ("JPEG", "PNG")  # formats that TFDS decodes
ORIENTATION = 0x0112  # the EXIF field; 1 is upright
MODES = {1: "L", 3: "RGB"}
JPEG_QUALITY = 95
EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclasses.dataclass(frozen=True)
class Stored:
    """A picture as it is stored.

    Attributes:
        data: an encoded file, JPEG or PNG.
        size: (height, width).
        notes: what was converted, in a few words each; () where the file was copied.
    """

    data: bytes
    size: tuple[int, int]
    notes: tuple[str, ...] = ()

    def file(self) -> io.BytesIO:
        """An open file, which TFDS stores as it is (it would import TensorFlow to encode an array)."""
        return io.BytesIO(self.data)


def copied(path: str | os.PathLike[str], channels: int, size: tuple[int, int] | None = None) -> Stored:
    """Reads a picture that is stored whole: the file itself where it can be, else a PNG of it.

    Args:
        path: of the file.
        channels: 1 or 3, of the stored picture.
        size: (height, width) that it must have; None takes any.

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
    return Stored(encoded(_pixels(upright, channels), "PNG"), found, notes)


def pixels(path: str | os.PathLike[str], channels: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reads a picture that is to be cropped: uint8 [H, W, channels], upright, and what was converted.

    Raises:
        BadPicture: as `copied`.
    """
    image, notes = _opened(_read(path), channels)
    return _pixels(ImageOps.exif_transpose(image), channels), notes


def encoded(image: np.ndarray, form: str) -> bytes:
    """Encodes uint8 [H, W, 1 | 3] as 'PNG', or as 'JPEG' of quality 95 without subsampling of color."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": JPEG_QUALITY, "subsampling": 0} if form == "JPEG" else {}
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, form, **options)
    return buffer.getvalue()


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name; what systems leave behind ('._a.jpg', 'Thumbs.db') is not."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise BadPicture("is not there: copy it again") from None
    except OSError as error:
        raise BadPicture(f"cannot be read ({error.strerror}): copy it again") from error
    if not data:
        raise BadPicture("is empty: copy it again")
    return data


def _opened(data: bytes, channels: int) -> tuple[Image.Image, tuple[str, ...]]:
    """Decodes a file in full, and says what of it has to be converted."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's on size and on damaged EXIF fields; the limit here is ours
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # a photo and its preview in one file, as telephones write it
                raise BadPicture(f"is animated ({frames} pictures): save one of them as PNG")
            image.load()
            turned = image.getexif().get(ORIENTATION, 1) not in (0, 1)  # some cameras write 0
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise BadPicture("is no picture: copy it again") from None
    except Image.DecompressionBombError:
        raise BadPicture(f"has more than the {MOST_PIXELS:,} pixels allowed: shrink it") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file brings them to
        raise BadPicture(f"is damaged ({_short(error)}): copy it again") from error
    notes = ["turned upright as its EXIF field says"] if turned else []
    wanted = "gray" if channels == 1 else "RGB"
    if image.mode not in ("L", "RGB") or "transparency" in image.info or _deep(data, image):
        notes.append(f"converted from {_mode(image, data)} to 8 bits of {wanted}")
    elif image.mode != MODES[channels]:
        notes.append(f"converted from {_mode(image, data)} to {wanted}")
    return image, tuple(notes)


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    mode = MODES[channels]
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float32)
        top = 255.0 if values.max(initial=0) <= 255 else 65535.0
        gray = np.clip(np.floor(values / top * 255 + 0.5), 0, 255).astype(np.uint8)
        image = Image.fromarray(gray)
    elif "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array[..., None] if channels == 1 else array


def _deep(data: bytes, image: Image.Image) -> bool:
    """Whether a PNG has 16 bits a channel, which Pillow hides where there is color."""
    return image.format == "PNG" and data[24] == 16


def _mode(image: Image.Image, data: bytes) -> str:
    if image.mode.startswith("I") or _deep(data, image):
        return "16 bits"
    names = {"1": "1 bit", "L": "gray", "P": "a palette", "LA": "gray with transparency"}
    clear = "transparency" in image.info or image.mode == "RGBA"
    return names.get(image.mode, "RGB with transparency" if clear else image.mode)


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
