"""Random Erasing (Zhong et al., arXiv 1708.04896), after normalization."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from fer_jax.data.augment.draws import box, stream


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
        aspect: range of its height / width, log-uniform as in torchvision (the paper's uniform favors tall ones).
        fill: 'zero', the mean color, or 'random', standard normal values.
    """
    height, width = image.shape[:2]
    top, left, h, w = erased_box(key, height, width, area, aspect)
    row, column = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    gone = (row >= top) & (row < top + h) & (column >= left) & (column < left + w)
    filling = jnp.zeros_like(image)
    if fill == "random":
        filling = jax.random.normal(stream(key, "fill"), image.shape)
    return jnp.where(gone[..., None], filling, image)


def erased_box(
    key: Key[Array, ""], height: int, width: int, area: tuple[float, float], aspect: tuple[float, float]
) -> tuple[Int[Array, ""], Int[Array, ""], Int[Array, ""], Int[Array, ""]]:
    """Draws (top, left, height, width) in whole pixels; the sides are 0 if no box fits."""
    low, high = aspect
    largest = jnp.array([width - 1, height - 1], jnp.float32)
    sides, fits = box(stream(key, "box"), height * width, area, (1 / high, 1 / low), largest)
    w, h = jnp.where(fits, jnp.round(sides), 0.0).astype(jnp.int32)
    free = jnp.stack([height - h, width - w])
    top, left = jax.random.randint(stream(key, "place"), (2,), jnp.zeros(2, jnp.int32), free + 1)
    return top, left, h, w
