"""Random Erasing (Zhong et al., arXiv 1708.04896): as in the paper, and as in torchvision, after normalization."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from fer_jax.data.augment.draws import box, stream

Box = tuple[Int[Array, ""], Int[Array, ""], Int[Array, ""], Int[Array, ""]]
"""Top, left, height and width in whole pixels."""


def erase(
    key: Key[Array, ""],
    image: Float[Array, "S S 3"],
    area: tuple[float, float],
    aspect: tuple[float, float],
    fill: str,
) -> Float[Array, "S S 3"]:
    """Overwrites one box.

    Args:
        key: of this operation.
        image: normalized.
        area: range of the box's share of the image.
        aspect: range of its height / width, log-uniform as in torchvision.
        fill: 'zero', the mean color, or 'random', standard normal values.
    """
    height, width = image.shape[:2]
    gone = _inside(height, width, erased_box(key, height, width, area, aspect))
    filling = jnp.zeros_like(image)
    if fill == "random":
        filling = jax.random.normal(stream(key, "fill"), image.shape)
    return jnp.where(gone[..., None], filling, image)


def erase_pixels(
    key: Key[Array, ""], image: Float[Array, "H W C"], area: tuple[float, float], aspect: tuple[float, float]
) -> Float[Array, "H W C"]:
    """Overwrites one box of an image in 0 .. 1 with random pixels, as the paper does.

    Its height / width is uniform, which favors tall boxes.
    """
    height, width = image.shape[:2]
    gone = _inside(height, width, erased_box(key, height, width, area, aspect, uniform=True))
    return jnp.where(gone[..., None], jax.random.uniform(stream(key, "fill"), image.shape), image)


def erased_box(
    key: Key[Array, ""],
    height: int,
    width: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
    uniform: bool = False,
) -> Box:
    """Draws a box; the sides are 0 if none fits.

    Args:
        key: of the operation.
        height, width: of the image.
        area: range of the box's share of the image.
        aspect: range of its height / width.
        uniform: whether height / width is uniform; else log-uniform.
    """
    low, high = aspect
    largest = jnp.array([width - 1, height - 1], jnp.float32)
    sides, fits = box(stream(key, "box"), height * width, area, (1 / high, 1 / low), largest, uniform)
    w, h = jnp.where(fits, jnp.round(sides), 0.0).astype(jnp.int32)
    free = jnp.stack([height - h, width - w])
    top, left = jax.random.randint(stream(key, "place"), (2,), jnp.zeros(2, jnp.int32), free + 1)
    return top, left, h, w


def _inside(height: int, width: int, place: Box) -> Bool[Array, "H W"]:
    top, left, h, w = place
    row, column = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    return (row >= top) & (row < top + h) & (column >= left) & (column < left + w)
