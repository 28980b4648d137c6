"""Batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167) with few passes over memory."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_normalize(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float):
    """Normalises x [..., C] by the batch's own statistics.

    Returns (y [..., C], mean [C], biased variance [C]); the statistics carry no gradient. The gradient is the
    closed form of the paper's section 3: two sums over the batch and one pass, where differentiating the formula
    term by term takes twice as many.
    """
    y, mean, variance, _ = _normalize(x, scale, bias, epsilon)
    return y, mean, variance


def _normalize(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float):
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axes)
    variance = jnp.maximum(jnp.mean(wide * wide, axes) - mean * mean, 0.0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    slope = scale * inverse
    y = wide * slope + (bias - mean * slope)
    return y.astype(x.dtype), mean, variance, inverse


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float):
    y, mean, variance, inverse = _normalize(x, scale, bias, epsilon)
    return (y, mean, variance), (x, scale, mean, inverse)


def _backward(epsilon: float, residuals: tuple[jax.Array, ...], cotangents: tuple[jax.Array, ...]):
    x, scale, mean, inverse = residuals
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    dy = cotangents[0].astype(jnp.float32)
    wide = x.astype(jnp.float32)
    dbias = jnp.sum(dy, axes)
    dscale = (jnp.sum(dy * wide, axes) - mean * dbias) * inverse
    slope = scale * inverse
    tilt = slope * inverse * dscale / count
    dx = slope * dy - tilt * wide + (tilt * mean - slope * dbias / count)
    return dx.astype(x.dtype), dscale, dbias


batch_normalize.defvjp(_forward, _backward)


class BatchNorm(nn.Module):
    """`nn.BatchNorm` with the same parameters ('scale', 'bias') and statistics ('mean', 'var'), all float32.

    Under jit with a sharded batch the statistics are those of the global batch. The running variance is the biased
    one, as in Flax (PyTorch keeps the unbiased, n / (n - 1) times as large).

    Attributes:
        momentum: weight of the old running value (PyTorch's momentum 0.1 is 0.9 here).
        epsilon: added to the variance.
        use_affine: whether there are a scale and a bias (Caffe's layer has none).
        dtype: of the output.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    use_affine: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        shape = (x.shape[-1],)
        scale, bias = jnp.ones(shape), jnp.zeros(shape)
        if self.use_affine:
            scale = self.param("scale", nn.initializers.ones_init(), shape)
            bias = self.param("bias", nn.initializers.zeros_init(), shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            slope = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
            y = x.astype(jnp.float32) * slope + (bias - running_mean.value * slope)
            return y.astype(self.dtype)
        normalized: Any = batch_normalize(x, scale, bias, self.epsilon)
        y, mean, variance = normalized
        if not self.is_initializing():
            running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
            running_var.value = self.momentum * running_var.value + (1 - self.momentum) * variance
        return y.astype(self.dtype)
