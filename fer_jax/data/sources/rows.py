"""Gathers the rows of a batch out of arrays that live on the device."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from fer_jax.data.sources.clips import ClipSample, is_per_frame
from fer_jax.nn.lowering import for_cpu

Batch = dict[str, jax.Array]


def take_rows(data: Mapping[str, jax.Array], indices: jax.Array | ClipSample) -> Batch:
    """Gathers a batch from arrays in device memory; for clips, also the frames at their positions in the flat list."""
    # Rows that do not exist: by default JAX looks at every pixel once more to fill in for them. There are none.
    take = functools.partial(jnp.take, axis=0, mode=None if for_cpu() else "clip")
    if not isinstance(indices, ClipSample):
        return {name: take(values, indices) for name, values in data.items()}
    frame = jnp.maximum(indices.frame, 0)  # [B, K]
    batch = {name: take(values, frame if is_per_frame(name) else indices.row) for name, values in data.items()}
    return batch | {"frame_mask": jnp.asarray(indices.frame) >= 0}


def mark_valid(batch: Batch) -> Batch:
    """Adds the `mask` of a training batch: every example counts but a clip without any face."""
    mask = jnp.ones(batch["label"].shape, bool)
    return batch | {"mask": jnp.any(batch["frame_mask"], axis=1) if "frame_mask" in batch else mask}
