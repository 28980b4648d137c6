"""Degraded copies of images, like the common corruptions of Hendrycks and Dietterich (ICLR 2019).

A degradation is written `kind:level`, with a level from 1 to 5 as in this table. Lengths are in pixels of an image of
224 and shrink with the image, so that a face of 48 pixels is degraded as much as a large one; the numbers lie between
those of the benchmark for 224 pixels and those for 32.

    kind              1     2     3     4     5
    low_resolution    2     3     4     6     8     factor by which the side shrinks
    gaussian_blur     2     3     4     5     6     standard deviation, pixels of 224
    motion_blur       8    12    16    22    28     length of the streak, pixels of 224, in a random direction
    gaussian_noise   10    20    30    45    65     standard deviation, of 255 gray levels
    jpeg             50    30    20    12     7     quality; color at half the resolution
    brightness       10    20    30    40    50     percent of white added
    contrast         60    45    30    20    10     percent of the distance from the image's mean color that is left

`low_resolution:24`, or any number above 5, means that many pixels on the longer side. Objects in front of faces are
config.evaluation.occluded (fer_jax/data/corrupt/occlusion.py).

Random numbers depend only on the seed and the example's row in the split as stored, and are the same for every level.
OpenCV and the JPEG library may differ between versions in the last bit, so results.json records the SHA-256 of the
images that were scored.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from fer_jax.data.corrupt.occlusion import INPUT, TEST_SEED
from fer_jax.errors import UserError, nearest
from fer_jax.parsing import whole_number
from fer_jax.randomness import PI, Purpose, cosine, raw_words, sine

if TYPE_CHECKING:
    from fer_jax.data.sources.source import Source

FIELD = "config.evaluation.degraded"
GRAIN_DEVIATION = 209.02  # of the sum of eight random bytes: sqrt(8 (256^2 - 1) / 12)

Words = Callable[[int], np.ndarray]  # returns that many random uint64, the image's own
Apply = Callable[[np.ndarray, float, Words], np.ndarray]


def low_resolution(image: np.ndarray, side: int) -> np.ndarray:
    """Returns uint8 [H, W, C] reduced by area to `side` pixels on the longer side and enlarged again bicubically."""
    height, width = image.shape[:2]
    small = [max(1, round(side * length / max(height, width))) for length in (width, height)]
    reduced = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(reduced, (width, height), interpolation=cv2.INTER_CUBIC).reshape(image.shape)


def _coarse(image: np.ndarray, times: float, _: Words) -> np.ndarray:
    return low_resolution(image, round(max(image.shape[:2]) / times))


def _gaussian_blur(image: np.ndarray, deviation: float, _: Words) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), deviation * _scale(image)).reshape(image.shape)


def _motion_blur(image: np.ndarray, length: float, words: Words) -> np.ndarray:
    angle = PI * (words(1)[0] >> np.uint64(11)) * 2.0**-53
    return cv2.filter2D(image, -1, streak(length * _scale(image), float(angle))).reshape(image.shape)


def _gaussian_noise(image: np.ndarray, deviation: float, words: Words) -> np.ndarray:
    grain = words(image.size).astype("<u8").view(np.uint8).reshape(*image.shape, 8).sum(axis=-1, dtype=np.int64)
    return _bytes(image + deviation / GRAIN_DEVIATION * (grain - 1020.0))


def _jpeg(image: np.ndarray, quality: float, _: Words) -> np.ndarray:
    file = io.BytesIO()
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.save(file, "JPEG", quality=int(quality), subsampling="4:2:0")
    return np.asarray(Image.open(file)).reshape(image.shape)


def _brightness(image: np.ndarray, percent: float, _: Words) -> np.ndarray:
    return _bytes(image + 2.55 * percent)


def _contrast(image: np.ndarray, percent: float, _: Words) -> np.ndarray:
    mean = image.mean(axis=(0, 1))
    return _bytes(mean + percent / 100 * (image - mean))


@dataclasses.dataclass(frozen=True)
class Kind:
    """A row of the table: the function, the meaning of its number, and the number at levels 1 to 5."""

    apply: Apply
    unit: str
    amounts: tuple[float, float, float, float, float]


# Add new kinds at the end: the random numbers of a kind depend on its place.
KINDS: Mapping[str, Kind] = {
    "low_resolution": Kind(_coarse, "times_fewer_pixels", (2, 3, 4, 6, 8)),
    "gaussian_blur": Kind(_gaussian_blur, "deviation_of_224", (2, 3, 4, 5, 6)),
    "motion_blur": Kind(_motion_blur, "length_of_224", (8, 12, 16, 22, 28)),
    "gaussian_noise": Kind(_gaussian_noise, "deviation_of_255", (10, 20, 30, 45, 65)),
    "jpeg": Kind(_jpeg, "quality", (50, 30, 20, 12, 7)),
    "brightness": Kind(_brightness, "per_cent_added", (10, 20, 30, 40, 50)),
    "contrast": Kind(_contrast, "per_cent_left", (60, 45, 30, 20, 10)),
}
LEVELS = range(1, 6)


def parse(text: Any) -> dict[str, Any]:
    """Returns the meaning of 'kind:level' as recorded in results.json: `kind`, and its number by the name of its unit.

    Raises:
        UserError: for an unknown kind or level.
    """
    kind, _, level = str(text).partition(":")
    if kind not in KINDS:
        raise UserError(f"{FIELD}: there is no degradation '{text}'; {nearest(kind, KINDS)}")
    number = whole_number(level) or 0
    if number in LEVELS:
        return {"kind": kind, KINDS[kind].unit: KINDS[kind].amounts[number - 1]}
    if kind == "low_resolution" and number:
        return {"kind": kind, "pixels": number}
    pixels = ", or a number of pixels" if kind == "low_resolution" else ""
    raise UserError(f"{FIELD}: '{text}': give a level, {kind}:1 to {kind}:5{pixels}")


def check_size(text: str, shape: tuple[int, ...]) -> None:
    """Raises UserError if images of this shape [H, W, C] have no more pixels than the low resolution."""
    pixels = parse(text).get("pixels", 0)
    if pixels >= max(shape[:2]):
        raise UserError(f"{FIELD}: '{text}': the images have only {max(shape[:2])} pixels; give fewer")


def degraded(source: Source, text: str) -> Source:
    """Returns the source with every image degraded by `text`, a 'kind:level'; points and labels stay the same.

    The result for an image depends only on its row in the split as stored.
    """
    found = parse(text)
    images = source.arrays["image"]
    check_size(text, images.shape[1:])
    kind = found["kind"]
    if "pixels" in found:
        worse = np.stack([low_resolution(image, found["pixels"]) for image in images])
    else:
        amount, apply, number = found[KINDS[kind].unit], KINDS[kind].apply, list(KINDS).index(kind)

        def words(row: int) -> Words:
            return lambda count: raw_words(TEST_SEED, Purpose.DEGRADATION, row, number, count)

        pairs = zip(images, source.rows.tolist(), strict=True)
        worse = np.stack([apply(image, amount, words(row)) for image, row in pairs])
    return dataclasses.replace(source, arrays={**source.arrays, "image": worse})


def images_sha256(source: Source) -> str:
    """Returns the SHA-256 of all pixels in the order of the examples."""
    return hashlib.sha256(source.arrays["image"].tobytes()).hexdigest()


def streak(length: float, angle: float) -> np.ndarray:
    """Returns the kernel of a straight motion, float32 [K, K] with sum 1: the share of time spent over each pixel.

    Args:
        length: in pixels; less than one pixel still blurs.
        angle: in radians.
    """
    steps = (np.arange(512) + 0.5) / 512 - 0.5
    x, y = (length * steps * float(of(angle)) for of in (cosine, sine))
    reach = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for dx in (0, 1):
        for dy in (0, 1):  # each moment is split among the four pixels around it
            share = (1 - np.abs(x - left - dx)) * (1 - np.abs(y - top - dy))
            np.add.at(kernel, (top + dy + reach, left + dx + reach), share)
    return (kernel / kernel.sum()).astype(np.float32)


def _scale(image: np.ndarray) -> float:
    return max(image.shape[:2]) / INPUT


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.floor(np.clip(values, 0, 255) + 0.5).astype(np.uint8)
