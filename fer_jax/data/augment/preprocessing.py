"""Deterministic preprocessing of every picture, in training, evaluation and prediction."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from fer_jax.data.augment import geometry
from fer_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How stored pixels become the network's input; stored with a trained model.

    Attributes:
        size: side of the network's input in pixels.
        crop: side of the center crop in pixels of the stored picture; 0 for the whole picture.
        mean, std: per channel, for pixels in 0 .. 1.
        standardize: normalize each image to mean 0 and variance 1, instead of using `mean` and `std`.
    """

    size: int
    crop: int = 0
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    standardize: bool = False

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = tuple(getattr(self, name))
            if len(values) != 3 or not all(math.isfinite(v) for v in values):
                raise UserError(f"config.preprocessing.{name}={values}: give three numbers, for red, green and blue")
            object.__setattr__(self, name, values)  # configs and JSON hold lists; a static argument must be hashable
        if min(self.std) <= 0:
            raise UserError(f"config.preprocessing.std={self.std}: give numbers above 0")


def preprocess(images: UInt8[Array, "B H W C"], preprocessing: Preprocessing) -> Float[Array, "B S S 3"]:
    """Returns the network's input: the center crop, resized, normalized, with three channels."""
    pixels = central(images, preprocessing) / 255
    return jax.vmap(lambda image: normalize(image, preprocessing))(pixels)


def central(images: UInt8[Array, "B H W C"], preprocessing: Preprocessing) -> Float[Array, "B S S C"]:
    """Returns the center crop in 0 .. 255, resized with smoothing."""
    top, left, height, width = _window(images.shape, preprocessing.crop)
    x = images[:, top : top + height, left : left + width].astype(jnp.float32)
    size = preprocessing.size
    return x if x.shape[1:3] == (size, size) else geometry.resize(x, size, size)


def central_matrix(shape: tuple[int, ...], preprocessing: Preprocessing) -> Float[Array, "2 3"]:
    """Returns the map from input to stored pixels that `central` follows for images of this shape [B, H, W, C]."""
    top, left, height, width = _window(shape, preprocessing.crop)
    extent, size = jnp.array([width, height], jnp.float32), preprocessing.size
    center = jnp.array([left, top], jnp.float32) + (extent - 1) / 2
    return geometry.around(jnp.diag(extent / size), center, size, size)


def normalize(image: Float[Array, "S S C"], preprocessing: Preprocessing) -> Float[Array, "S S 3"]:
    """Repeats gray three times, and normalizes pixels in 0 .. 1.

    A standardized image is divided by its standard deviation, but by no less than 1 / sqrt(number of values).
    """
    if preprocessing.standardize:
        least = math.sqrt(1 / math.prod(image.shape))
        image = (image - jnp.mean(image)) / jnp.maximum(jnp.std(image), least)
    image = jnp.broadcast_to(image, (*image.shape[:2], 3))
    if preprocessing.standardize:
        return image
    return (image - jnp.array(preprocessing.mean)) / jnp.array(preprocessing.std)


def _window(shape: tuple[int, ...], crop: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the middle window of images [B, H, W, C]."""
    height, width = shape[1:3]
    if not crop:
        return 0, 0, height, width
    if crop > (most := min(height, width)):
        raise UserError(
            f"a crop of {crop} pixels (config.preprocessing.crop, or 'crop' in config.augmentation.train): the stored "
            f"pictures are {height}x{width}; give {most} at most"
        )
    return (height - crop) // 2, (width - crop) // 2, crop, crop
