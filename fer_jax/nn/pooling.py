"""Pooling whose gradient is fast on a CPU too."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from fer_jax.nn.convolution import Padding, shifted_slices


def max_pool(x: jax.Array, window: int = 3, stride: int = 2, padding: int = 1) -> jax.Array:
    """Maximum over square windows of x [B, H, W, C], padded with -inf on every side.

    On a CPU it is the maximum of the window's shifted slices.
    """
    pad: Padding = ((padding, padding), (padding, padding))
    if jax.default_backend() != "cpu":
        return nn.max_pool(x, (window, window), (stride, stride), pad)
    return functools.reduce(jnp.maximum, shifted_slices(x, (window, window), stride, pad, fill=-jnp.inf))


def global_average_pool(x: jax.Array) -> jax.Array:
    """The mean over the map: [B, H, W, C] -> [B, C]."""
    return jnp.mean(x, axis=(1, 2))
