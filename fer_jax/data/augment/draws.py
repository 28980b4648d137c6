"""Random draws of the augmentation.

Each operation of an example has a key of its own, a function of the step's key, the example's place in the global
batch and the operation's name: no operation changes another one's draws, and neither does the number of devices.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

TRIES = 10  # draws of a box before giving up, as in torchvision

# A name's place is part of its key: add new names at the end.
STREAMS = (
    "window", "shift", "affine", "flip", "brightness", "contrast", "erase",
    "rotation", "shear", "zoom", "translate", "fill", "box", "chosen", "place", "warp", "sides", "light",
    "noise", "one_of", "all_of", "pick", "view", "autoaugment",
    "randaugment", "trivialaugment", "augmix", "erase_pixels", "low_resolution",
)  # fmt: skip


def example_keys(key: Key[Array, ""], count: int, alike: int = 1) -> Key[Array, "B"]:
    """Returns the keys of `count` images; each `alike` successive ones share a key."""
    keys = jax.random.split(key, count // alike)
    return keys if alike == 1 else keys[jnp.arange(count) // alike]


def stream(key: Key[Array, ""], *names: str) -> Key[Array, ""]:
    """Returns the key of an operation, or of one of its draws."""
    for name in names:
        key = jax.random.fold_in(key, STREAMS.index(name))
    return key


def symmetric(key: Key[Array, ""], bound: float, shape: tuple[int, ...] = ()) -> Float[Array, "*shape"]:
    """Returns uniform draws from -bound to bound."""
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def around_one(key: Key[Array, ""], spread: float) -> Float[Array, ""]:
    """Returns a uniform draw from 1 - spread, but at least 0, to 1 + spread."""
    return jax.random.uniform(key, minval=max(0.0, 1 - spread), maxval=1 + spread)


def box(
    key: Key[Array, ""],
    whole: float | Float[Array, ""],
    share: tuple[float, float],
    aspect: tuple[float, float],
    limit: Float[Array, "2"],
    uniform: bool = False,
) -> tuple[Float[Array, "2"], Bool[Array, ""]]:
    """Draws the (width, height) of a box: a share of the area `whole`, its width / height log-uniform in `aspect`.

    With `uniform`, height / width is uniform instead, in the same range.

    Returns the first of ten draws that is no larger than `limit`, and whether there was one.
    """
    area_key, aspect_key = jax.random.split(key)
    areas = whole * jax.random.uniform(area_key, (TRIES,), minval=share[0], maxval=share[1])
    low, high = (1 / aspect[1], 1 / aspect[0]) if uniform else map(math.log, aspect)
    drawn = jax.random.uniform(aspect_key, (TRIES,), minval=low, maxval=high)
    ratio = 1 / drawn if uniform else jnp.exp(drawn)
    sides = jnp.stack([jnp.sqrt(areas * ratio), jnp.sqrt(areas / ratio)], axis=-1)
    fits = jnp.all(sides <= limit, axis=-1)
    return sides[jnp.argmax(fits)], jnp.any(fits)
