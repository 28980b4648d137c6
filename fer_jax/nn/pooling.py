"""Pooling with a gradient that is also fast on a CPU."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from fer_jax.nn.linear import full_einsum
from fer_jax.nn.lowering import target
from fer_jax.nn.padding import pad_axis


def max_pool(x: jax.Array, window: int = 3, stride: int = 2, padding: int = 1) -> jax.Array:
    """Returns the maximum over square windows of x [B, H, W, C], padded with -inf on every side.

    The gradient goes to the first maximum of a window in row-major order, as in XLA and PyTorch. On a CPU the gradient
    of XLA's reduce-window (select-and-scatter) is several times slower than pooling first columns and then rows with a
    gradient made of shifted slices. jax2onnx does not convert a reduce-window.
    """
    if target() not in ("cpu", "onnx"):
        pad: Any = ((padding, padding), (padding, padding))  # Flax's annotation allows only strings
        return nn.max_pool(x, (window, window), (stride, stride), pad)
    columns = max_pool_axis(x, 2, window, stride, padding)
    return max_pool_axis(columns, 1, window, stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def max_pool_axis(x: jax.Array, axis: int, window: int, stride: int, padding: int) -> jax.Array:
    """Returns the maximum over windows along one axis, computed from the window's shifted slices."""
    return functools.reduce(jnp.maximum, _slices(x, axis, window, stride, padding))


def _slices(x: jax.Array, axis: int, window: int, stride: int, padding: int) -> list[jax.Array]:
    x = pad_axis(x, axis, (padding, padding), -jnp.inf)
    end = stride * ((x.shape[axis] - window) // stride) + 1
    return [lax.slice_in_dim(x, i, i + end, stride, axis) for i in range(window)]


def _max_pool_forward(x: jax.Array, axis: int, window: int, stride: int, padding: int):
    slices = _slices(x, axis, window, stride, padding)
    y = functools.reduce(jnp.maximum, slices)
    winner = jnp.full(y.shape, window - 1, jnp.int8)  # position in the window of the first maximum
    for i in reversed(range(window - 1)):
        winner = jnp.where(slices[i] == y, jnp.int8(i), winner)
    return y, (winner, x.shape[axis])


def _max_pool_backward(
    axis: int, window: int, stride: int, padding: int, residuals: tuple[jax.Array, int], dy: jax.Array
):
    winner, size = residuals
    zero = jnp.zeros((), dy.dtype)
    reach = stride * (dy.shape[axis] - 1) + 1  # how far the windows' first cells spread in the input
    parts = []
    for i in range(window):
        low = i - padding
        config = [(low, size - low - reach, stride - 1) if a == axis else (0, 0, 0) for a in range(dy.ndim)]
        parts.append(lax.pad(jnp.where(winner == i, dy, zero), zero, config))
    return (sum(parts[1:], parts[0]),)


max_pool_axis.defvjp(_max_pool_forward, _max_pool_backward)


def global_average_pool(x: jax.Array) -> jax.Array:
    """Returns the mean over the map, computed in float32: [B, H, W, C] -> [B, C]."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)


def global_max_pool(x: jax.Array) -> jax.Array:
    """Returns the maximum over the map in float32: [B, H, W, C] -> [B, C].

    Its gradient goes to the first of equal cells, as in PyTorch. That of jnp.max looks for cells equal to the maximum,
    and is 0 / 0 where the compiler computes the map twice and rounds it differently.
    """
    cells = x.astype(jnp.float32).reshape(x.shape[0], -1, x.shape[-1])
    first = lax.stop_gradient(jax.nn.one_hot(jnp.argmax(cells, axis=1), cells.shape[1], axis=1))
    return jnp.sum(cells * first, axis=1)


def adaptive_average_pool(x: jax.Array, cells: int) -> jax.Array:
    """Returns PyTorch's `AdaptiveAvgPool2d(cells)` of x [B, H, W, C], float32 [B, cells, cells, C].

    Cell i is the mean of the rows floor(i H / cells) to ceil((i + 1) H / cells), columns likewise: cells overlap where
    their number does not divide the side, and repeat each other where the map is smaller.
    """
    rows, columns = (_shares(size, cells) for size in x.shape[1:3])
    return full_einsum("ih,jw,bhwc->bijc", rows, columns, x.astype(jnp.float32))


def _shares(size: int, cells: int) -> jax.Array:
    """Returns the weight of each row in each cell, [cells, size]."""
    cell, row = np.arange(cells)[:, None], np.arange(size)
    inside = (row >= cell * size // cells) & (row < -(-(cell + 1) * size // cells))
    return jnp.asarray(inside / inside.sum(1, keepdims=True), jnp.float32)
