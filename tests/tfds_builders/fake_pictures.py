"""Random pictures for fake trees of data sets, good ones and every bad kind."""

from __future__ import annotations

import io
import pathlib
import zlib

import numpy as np
from PIL import Image


def pixels(name: str, width: int, height: int, channels: int = 3) -> np.ndarray:
    """Smooth random pixels that the name decides, so that JPEG keeps them recognizable."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    coarse = rng.integers(0, 256, (6, 6, channels), dtype=np.uint8)
    image = Image.fromarray(coarse[..., 0] if channels == 1 else coarse).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.asarray(image)


def write(path: pathlib.Path, width: int = 100, height: int = 100, channels: int = 3) -> pathlib.Path:
    """Writes a picture in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(path.name, width, height, channels)).save(path)
    return path


def flat(path: pathlib.Path, level: int, width: int = 16, height: int = 16) -> pathlib.Path:
    """Writes a picture of one gray, RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), level, np.uint8)).save(path)
    return path


def truncated(path: pathlib.Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def empty(path: pathlib.Path) -> None:
    path.write_bytes(b"")


def text(path: pathlib.Path) -> None:
    path.write_text("<html>You have no access to this file</html>")


def animated(path: pathlib.Path) -> None:
    frames = [Image.fromarray(pixels(f"{path.name}{i}", 100, 100)) for i in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    path.write_bytes(buffer.getvalue())


def huge(path: pathlib.Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path, "PNG")


def cmyk(path: pathlib.Path) -> None:
    Image.open(path).convert("CMYK").save(path, "JPEG", quality=95)


def sixteen_bits(path: pathlib.Path) -> None:
    gray = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 257
    Image.fromarray(gray).save(path, "PNG")


def turned(path: pathlib.Path) -> None:
    """The same picture as a telephone held upside down stores it: turned, with an EXIF field that says so."""
    image = Image.open(path).rotate(180)
    exif = Image.Exif()
    exif[0x0112] = 3
    image.save(path, "JPEG", quality=95, exif=exif)


BROKEN = {  # what makes a picture useless, and what the line about it says
    "truncated": (truncated, "is damaged"),
    "empty": (empty, "is empty"),
    "text": (text, "is not a picture"),
    "animated": (animated, "is animated (3 pictures)"),
    "huge": (huge, "has more than the 64,000,000 pixels allowed"),
}
ODD = {  # what is converted, and the note about it
    "cmyk": (cmyk, "converted from CMYK"),
    "sixteen_bits": (sixteen_bits, "converted from more than 8 bits"),
    "turned": (turned, "turned upright"),
}
