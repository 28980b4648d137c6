"""Operations on the values of pixels: images in 0 .. 1."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fer_jax.data.augment.draws import around_one, symmetric

GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma, as in PIL and torchvision


def random_brightness(key: Key[Array, ""], image: Float[Array, "H W C"], spread: float) -> Float[Array, "H W C"]:
    return brightness(image, around_one(key, spread))


def random_contrast(key: Key[Array, ""], image: Float[Array, "H W C"], spread: float) -> Float[Array, "H W C"]:
    return contrast(image, around_one(key, spread))


def logit_brightness(key: Key[Array, ""], image: Float[Array, "H W C"], spread: float) -> Float[Array, "H W C"]:
    """Moves the logits of pixels so that 0.5 becomes 0.5 (1 - spread) to 0.5 (1 + spread): fastai's `brightness`."""
    middle = around_one(key, spread) / 2
    return jax.nn.sigmoid(_logit(image) + _logit(middle))


def logit_contrast(key: Key[Array, ""], image: Float[Array, "H W C"], spread: float) -> Float[Array, "H W C"]:
    """Multiplies the logits of pixels by 1 - spread to 1 / (1 - spread), log-uniform: fastai's `contrast`."""
    return jax.nn.sigmoid(_logit(image) * jnp.exp(symmetric(key, -math.log1p(-spread))))


def noise(key: Key[Array, ""], image: Float[Array, "H W C"], deviation: float) -> Float[Array, "H W C"]:
    """Adds Gaussian noise to every value, clipped to 0 .. 1; `deviation` is that of 255 gray levels."""
    return jnp.clip(image + deviation / 255 * jax.random.normal(key, image.shape), 0.0, 1.0)


def low_resolution(key: Key[Array, ""], image: Float[Array, "H W C"], factor: int) -> Float[Array, "H W C"]:
    """Reduces the picture 2, 3, ... or `factor` times, each as likely, and enlarges it again: a face farther away."""
    height, width, channels = image.shape
    small = [jax.image.resize(image, (height // k, width // k, channels), "linear") for k in range(2, factor + 1)]
    seen = jnp.stack([jax.image.resize(s, image.shape, "cubic") for s in small])
    return jnp.clip(seen[jax.random.randint(key, (), 0, factor - 1)], 0.0, 1.0)


def brightness(image: Float[Array, "H W C"], factor: Float[Array, ""]) -> Float[Array, "H W C"]:
    """Returns factor * image, clipped to 0 .. 1."""
    return jnp.clip(factor * image, 0.0, 1.0)


def contrast(image: Float[Array, "H W C"], factor: Float[Array, ""]) -> Float[Array, "H W C"]:
    """Returns mean gray + factor * (image - mean gray), clipped to 0 .. 1."""
    gray = jnp.sum(image * jnp.array(GRAY), axis=-1) if image.shape[-1] == 3 else image
    mean = jnp.mean(gray)
    return jnp.clip(mean + factor * (image - mean), 0.0, 1.0)


def _logit(x: Float[Array, "..."]) -> Float[Array, "..."]:
    x = jnp.clip(x, 1e-7, 1 - 1e-7)  # fastai's bounds
    return jnp.log(x / (1 - x))
