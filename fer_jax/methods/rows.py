"""Rows of a batch and rows of a memory: order and ties are settled by index, so that devices do not matter."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def write(
    memory: Float[Array, "N *S"] | Int[Array, "N *S"],
    index: Int[Array, "B"],
    values: Float[Array, "B *S"] | Int[Array, "B *S"],
    valid: Bool[Array, "B"],
) -> Array:
    """Returns `memory` with `values` in the rows `index`, but for rows of the batch that are not `valid`.

    An example that is in the batch twice keeps the values of its last row.
    """
    later = jnp.arange(len(index))[None, :] > jnp.arange(len(index))[:, None]
    again = jnp.any(later & (index[None, :] == index[:, None]) & valid[None, :], axis=1)
    nowhere = len(memory)  # writes there are dropped
    return memory.at[jnp.where(valid & ~again, index, nowhere)].set(values.astype(memory.dtype), mode="drop")


def rank(values: Float[Array, "B"], index: Int[Array, "B"]) -> Int[Array, "B"]:
    """Returns the place of each row when sorted by value, the smallest first; equal values by index."""
    order = jnp.lexsort((index, values))
    return jnp.zeros_like(order).at[order].set(jnp.arange(len(order), dtype=order.dtype))


def mean_where(values: Float[Array, "B"], chosen: Bool[Array, "B"]) -> Float[Array, ""]:
    """Returns the mean of the chosen rows, 0 where there are none."""
    counted = jnp.maximum(jnp.sum(chosen.astype(jnp.float32)), 1.0)
    return jnp.sum(jnp.where(chosen, values, 0.0)) / counted
