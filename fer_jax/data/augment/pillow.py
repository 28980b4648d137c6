"""The operations of augmentation policies on pixels, as Pillow carries them out, in JAX.

Pictures are float32 planes [C, H, W] with whole gray levels 0 .. 255: XLA's CPU compiler vectorizes along rows, but not
along three interleaved colors. Which operation an image undergoes is data, so under vmap all are
computed: enhancements share one blend, changes of levels are arithmetic, and only `equalize` needs a histogram.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Image = Float[Array, "C H W"]

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate",
    "brightness", "color", "contrast", "sharpness",
    "posterize", "solarize", "autocontrast", "equalize", "invert",
)  # fmt: skip
NUMBER = {name: number for number, name in enumerate(OPERATIONS)}
JUST_BELOW = 1e-3  # where Pillow truncates a whole number, float32 may lie below it


def apply(image: Image, operation: Int[Array, ""], value: Float[Array, ""], bilinear: bool = False) -> Image:
    """Returns the image after one operation.

    Args:
        image: C = 1 (mode L) or 3 (RGB).
        operation: a position in OPERATIONS.
        value: shear: pixels per pixel, from the top left corner; translate: pixels, cut to whole ones; rotate: degrees
            counter-clockwise; brightness, color, contrast, sharpness: factor of ImageEnhance; posterize: bits that are
            kept; solarize: the lowest level that is inverted. The others have none.
        bilinear: of geometry, as Pillow's BILINEAR, else NEAREST; outside is black.
    """
    turned = resample(image, source_matrix(operation, value, *image.shape[1:]), bilinear)
    # Otherwise XLA's CPU compiler computes it again for each of the sums over its pixels.
    enhanced = jax.lax.optimization_barrier(_enhanced(turned, operation, value))
    return _leveled(enhanced, operation, value)


def source_matrix(operation: Int[Array, ""], value: Float[Array, ""], height: int, width: int) -> Float[Array, "2 3"]:
    """Returns the map from output to source, in coordinates whose pixel centers are at halves; else the identity."""

    def amount(name: str) -> Float[Array, ""]:
        return jnp.where(operation == NUMBER[name], value, 0.0)

    angle = jnp.deg2rad(amount("rotate"))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = width / 2, height / 2
    rows = [
        [cos, amount("shear_x") - sin, x - cos * x + sin * y - jnp.trunc(amount("translate_x"))],
        [amount("shear_y") + sin, cos, y - sin * x - cos * y - jnp.trunc(amount("translate_y"))],
    ]
    return jnp.stack([jnp.stack(row) for row in rows])


def resample(image: Image, matrix: Float[Array, "2 3"], bilinear: bool) -> Image:
    """Reads the image at the places of `source_matrix`, black outside."""
    channels, height, width = image.shape
    column, row = jnp.arange(width)[None, :], jnp.arange(height)[:, None]
    pixels = image.reshape(channels, height * width)

    def read(x: Int[Array, "H W"], y: Int[Array, "H W"]) -> Image:
        at = jnp.clip(y, 0, height - 1) * width + jnp.clip(x, 0, width - 1)
        return jnp.take(pixels, at, axis=1, mode="clip")

    if bilinear:
        middle_x, middle_y = column.astype(jnp.float32) + 0.5, row.astype(jnp.float32) + 0.5
        x, y = (a * middle_x + b * middle_y + c for a, b, c in matrix)
        seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        left, top = jnp.floor(x - 0.5), jnp.floor(y - 0.5)
        right, below = x - 0.5 - left, y - 0.5 - top
        i, j = left.astype(jnp.int32), top.astype(jnp.int32)
        upper = read(i, j) * (1 - right) + read(i + 1, j) * right
        lower = read(i, j + 1) * (1 - right) + read(i + 1, j + 1) * right
        value = jnp.floor(upper * (1 - below) + lower * below + JUST_BELOW)
    else:  # Pillow's fixed-point numbers: 16 bits after the point
        fixed = jnp.floor(matrix.at[:, 2].add(matrix[:, :2].sum(axis=1) / 2) * 65536 + 0.5).astype(jnp.int32)
        x, y = ((a * column + b * row + c) >> 16 for a, b, c in fixed)
        seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        value = read(x, y)
    return jnp.where(seen, value, 0.0)


def luma(image: Image) -> Float[Array, "1 H W"]:
    """Returns Pillow's conversion to mode L, in whole levels."""
    if len(image) == 1:
        return image
    red, green, blue = image
    return jnp.floor((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536)[None]


def _enhanced(image: Image, operation: Int[Array, ""], factor: Float[Array, ""]) -> Image:
    """Moves the image away from, or towards, what an enhancement leaves at the factor 0: ImageEnhance."""
    gray = luma(image)
    base = jnp.where(operation == NUMBER["sharpness"], _smooth(image), 0.0)
    base = jnp.where(operation == NUMBER["color"], gray, base)
    base = jnp.where(operation == NUMBER["contrast"], jnp.floor(jnp.mean(gray) + 0.5), base)
    blended = jnp.floor(jnp.clip(base + factor * (image - base), 0.0, 255.0))
    enhances = (operation >= NUMBER["brightness"]) & (operation <= NUMBER["sharpness"])
    return jnp.where(enhances, blended, image)


def _smooth(image: Image) -> Image:
    """ImageFilter.SMOOTH: the mean of 3x3 pixels, the middle one five times; the edge is kept."""
    rows = image[:, :-2] + image[:, 1:-1] + image[:, 2:]
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = jnp.floor((around + 4 * image[:, 1:-1, 1:-1]) / 13 + 0.5)
    return image.at[:, 1:-1, 1:-1].set(inner)


def _leveled(image: Image, operation: Int[Array, ""], value: Float[Array, ""]) -> Image:
    """Changes gray levels of each channel by itself: ImageOps."""
    flat = image.reshape(len(image), -1)
    lowest, highest = (bound(flat, axis=1)[:, None, None] for bound in (jnp.min, jnp.max))
    stretched = jnp.floor((image - lowest) * 255 / jnp.maximum(highest - lowest, 1.0))
    x = jnp.where((operation == NUMBER["autocontrast"]) & (highest > lowest), stretched, image)
    x = jnp.where(operation == NUMBER["equalize"], jax.vmap(_equalized)(flat).reshape(image.shape), x)
    step = jnp.where(operation == NUMBER["posterize"], jnp.exp2(8 - value), 1.0)
    x = jnp.floor(x / step) * step
    threshold = jnp.where(operation == NUMBER["solarize"], value, 256.0)
    threshold = jnp.where(operation == NUMBER["invert"], 0.0, threshold)
    return jnp.where(x >= threshold, 255 - x, x)


def _equalized(channel: Float[Array, "N"]) -> Float[Array, "N"]:
    levels = channel.astype(jnp.int32)
    counts = jnp.zeros(256, jnp.int32).at[levels].add(1)
    step = (levels.size - counts[jnp.max(channel).astype(jnp.int32)]) // 255
    below = jnp.cumsum(counts) - counts
    table = jnp.where(step > 0, jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255), jnp.arange(256))
    table = jax.lax.optimization_barrier(table.astype(channel.dtype))  # or the CPU divides again for each pixel
    return jnp.take(table, levels, mode="clip")
