"""Batch normalization (Ioffe and Szegedy 2015, arXiv 1502.03167) with few passes over memory."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_normalize(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float):
    """Normalizes x [..., C] by the batch's own statistics.

    Returns (y [..., C], mean [C], biased variance [C]); the statistics carry no gradient. The gradient is the closed
    form of the paper's section 3: two sums over the batch and one pass, half as many as automatic differentiation
    takes.
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def masked_batch_normalize(x: jax.Array, scale: jax.Array, bias: jax.Array, mask: jax.Array, epsilon: float):
    """`batch_normalize` by the statistics of only those examples whose `mask` [B] is true.

    The others are normalized by the same statistics but contribute to neither their value nor their gradient. If no
    example counts, mean and variance are 0.
    """
    y, mean, variance, _, _ = _normalize_masked(x, scale, bias, mask, epsilon)
    return y, mean, variance


def _normalize_masked(x: jax.Array, scale: jax.Array, bias: jax.Array, mask: jax.Array, epsilon: float):
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(jnp.float32)
    counted = jnp.where(_per_example(mask, x), wide, 0.0)
    places = x.size // (x.shape[0] * x.shape[-1])  # values per channel and example
    count = jnp.maximum(jnp.sum(mask.astype(jnp.float32)) * places, 1.0)
    mean = jnp.sum(counted, axes) / count
    variance = jnp.maximum(jnp.sum(counted * counted, axes) / count - mean * mean, 0.0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    slope = scale * inverse
    y = wide * slope + (bias - mean * slope)
    return y.astype(x.dtype), mean, variance, inverse, count


def _masked_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, mask: jax.Array, epsilon: float):
    y, mean, variance, inverse, count = _normalize_masked(x, scale, bias, mask, epsilon)
    return (y, mean, variance), (x, scale, mask, mean, inverse, count)


def _masked_backward(epsilon: float, residuals: tuple[jax.Array, ...], cotangents: tuple[jax.Array, ...]):
    x, scale, mask, mean, inverse, count = residuals
    axes = tuple(range(x.ndim - 1))
    dy = cotangents[0].astype(jnp.float32)
    wide = x.astype(jnp.float32)
    dbias = jnp.sum(dy, axes)
    dscale = (jnp.sum(dy * wide, axes) - mean * dbias) * inverse
    slope = scale * inverse
    tilt = slope * inverse * dscale / count
    through_statistics = tilt * (wide - mean) + slope * dbias / count
    dx = slope * dy - jnp.where(_per_example(mask, x), through_statistics, 0.0)
    return dx.astype(x.dtype), dscale, dbias, None


masked_batch_normalize.defvjp(_masked_forward, _masked_backward)


def _per_example(mask: jax.Array, x: jax.Array) -> jax.Array:
    return mask.reshape(-1, *[1] * (x.ndim - 1))


class BatchNorm(nn.Module):
    """`nn.BatchNorm` with the same parameters ('scale', 'bias') and statistics ('mean', 'var'), all float32.

    Under jit with a sharded batch the statistics are those of the global batch. The running variance is the biased
    one, as in Flax (PyTorch's is unbiased, n / (n - 1) times as large).

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
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Normalizes x [B, ..., C]; examples outside `mask`, bool [B], do not enter the statistics."""
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
        normalized: Any
        if mask is None:
            momentum, normalized = self.momentum, batch_normalize(x, scale, bias, self.epsilon)
        else:
            # If no example counts, the running statistics stay as they are.
            momentum = jnp.where(jnp.any(mask), self.momentum, 1.0)
            normalized = masked_batch_normalize(x, scale, bias, mask, self.epsilon)
        y, mean, variance = normalized
        if not self.is_initializing():
            running_mean.value = momentum * running_mean.value + (1 - momentum) * mean
            running_var.value = momentum * running_var.value + (1 - momentum) * variance
        return y.astype(self.dtype)
