"""Batch normalization (Ioffe and Szegedy 2015, arXiv 1502.03167) with few passes over memory."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def batch_normalize(x: jax.Array, scale: jax.Array, bias: jax.Array, mask: jax.Array | None, epsilon: float):
    """Normalizes x [B, ..., C] by the statistics of the examples whose `mask` [B] is true, or of all without a mask.

    The other examples are normalized alike but contribute to neither the statistics nor their gradient. Returns (y of
    x's shape, mean [C], biased variance [C]); the statistics carry no gradient, and are 0 if no example counts. The
    gradient is the closed form of the paper's section 3: two sums over the batch and one pass, half as many as
    automatic differentiation takes.
    """
    return _forward(x, scale, bias, mask, epsilon)[0]


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, mask: jax.Array | None, epsilon: float):
    mean, variance, count = _statistics(x, mask)
    inverse = jax.lax.rsqrt(variance + epsilon)
    y = (x.astype(jnp.float32) - mean) * (scale * inverse) + bias
    return (y.astype(x.dtype), mean, variance), (x, scale, mask, mean, inverse, count)


def _statistics(x: jax.Array, mask: jax.Array | None):
    """Returns (mean [C], biased variance [C], number of values in each channel) in one pass over x.

    In float32, E[x^2] - E[x]^2 loses the variance of channels whose mean is large beside it. So the values of an
    example are summed as differences from one of them, and the examples' means and variances joined exactly.
    """
    inner = tuple(range(1, x.ndim - 1))
    wide = x.astype(jnp.float32)
    origin = wide[(slice(None), *[0] * len(inner))]  # [B, C], an example's first place
    apart = wide - jnp.expand_dims(origin, inner)
    distance = jnp.mean(apart, inner)  # [B, C], from an example's origin to its mean
    within = jnp.maximum(jnp.mean(apart * apart, inner) - distance * distance, 0.0)
    examples = jnp.float32(len(x)) if mask is None else jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)

    def average(table: jax.Array) -> jax.Array:
        counted = table if mask is None else jnp.where(mask[:, None], table, 0.0)
        return jnp.sum(counted, 0) / examples

    mean = average(origin + distance)
    between = (origin - mean + distance) ** 2  # in this order no digits are lost
    return mean, average(within + between), examples * (x[0].size // x.shape[-1])


def _backward(epsilon: float, residuals: tuple[Any, ...], cotangents: tuple[jax.Array, ...]):
    x, scale, mask, mean, inverse, count = residuals
    axes = tuple(range(x.ndim - 1))
    dy = cotangents[0].astype(jnp.float32)
    centered = x.astype(jnp.float32) - mean
    dbias = jnp.sum(dy, axes)
    dscale = jnp.sum(dy * centered, axes) * inverse
    through_statistics = centered * (inverse * dscale / count) + dbias / count
    if mask is not None:
        through_statistics = jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), through_statistics, 0.0)
    dx = scale * inverse * (dy - through_statistics)
    return dx.astype(x.dtype), dscale, dbias, None


batch_normalize.defvjp(_forward, _backward)


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
        normalized: Any = batch_normalize(x, scale, bias, mask, self.epsilon)
        y, mean, variance = normalized
        # If no example counts, the running statistics stay as they are.
        momentum = self.momentum if mask is None else jnp.where(jnp.any(mask), self.momentum, 1.0)
        if not self.is_initializing():
            running_mean.value = momentum * running_mean.value + (1 - momentum) * mean
            running_var.value = momentum * running_var.value + (1 - momentum) * variance
        return y.astype(self.dtype)
