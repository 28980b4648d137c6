"""Padding along one axis, in a form that a file of ONNX can hold as well."""

import jax
import jax.numpy as jnp
from jax import lax

from fer_jax.nn.lowering import target


def pad_axis(x: jax.Array, axis: int, widths: tuple[int, int], value: float) -> jax.Array:
    """Returns x with so many cells of a value before and after those of an axis."""
    if target() != "onnx":
        config = [(*widths, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
        return lax.pad(x, jnp.array(value, x.dtype), config)
    # jax2onnx does not pad an array of which one side is unknown, that of the batch.
    before, after = (jnp.full((*x.shape[:axis], n, *x.shape[axis + 1 :]), value, x.dtype) for n in widths)
    return jnp.concatenate([part for part in (before, x, after) if part.shape[axis]], axis)
