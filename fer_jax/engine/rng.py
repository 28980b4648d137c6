"""Random streams: a key is a function of (seed, stream name, step), so no random state is stored."""

from __future__ import annotations

import zlib

import jax


def stream_key(seed: int | jax.Array, name: str, step: int | jax.Array = 0) -> jax.Array:
    """Returns the key of a stream at a step; it does not depend on earlier steps."""
    named = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()) & 0x7FFFFFFF)
    return jax.random.fold_in(named, step)
