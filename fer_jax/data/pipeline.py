"""Grain decides the order of examples; the same order serves data on the device and data that streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import grain
import numpy as np
from absl import flags

STREAM_AHEAD = 4  # batches that a background thread gathers before they are asked for


def index_batches(
    num_examples: int, batch_size: int, seed: int, *, labels: np.ndarray | None = None
) -> grain.MapDataset:
    """Returns the batches of all epochs as a random-access data set: element `s` is the int32 [B] rows of step `s`.

    Each epoch is a fresh permutation; a batch may reach over the end of one into the next, so that no example is
    dropped. Because any step can be asked for directly, resuming needs the step number and nothing else.

    Args:
        num_examples: rows to draw from.
        batch_size: global batch size B.
        seed: of the permutations.
        labels: int [num_examples]; when given, each class is drawn equally often, with replacement.
    """
    _mark_flags()
    rows = grain.MapDataset.range(num_examples)
    if labels is None:
        rows = rows.shuffle(seed=seed).repeat(None)
    else:
        members = [np.flatnonzero(labels == c) for c in np.unique(labels)]

        def draw(_: int, rng: np.random.Generator) -> int:
            mine = members[rng.integers(len(members))]
            return int(mine[rng.integers(len(mine))])

        rows = rows.repeat(None).seed(seed).random_map(draw)
    return rows.batch(batch_size, batch_fn=lambda values: np.asarray(values, np.int32))


def stream(
    batches: grain.MapDataset, start_step: int, gather: Any, ahead: int = STREAM_AHEAD
) -> Iterator[Mapping[str, Any]]:
    """Yields `gather(indices)` for each step from `start_step` on; background threads prepare `ahead` of them."""
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=ahead)
    iterator = iter(batches.map(gather).to_iter_dataset(options))
    iterator.set_state({"next_index": start_step})
    yield from iterator


def eval_batches(num_examples: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (indices, mask) [batch_size] covering every example exactly once; the last batch is padded with row 0."""
    for start in range(0, num_examples, batch_size):
        rows = np.arange(start, start + batch_size, dtype=np.int32)
        mask = rows < num_examples
        yield np.where(mask, rows, 0).astype(np.int32), mask


def _mark_flags() -> None:
    # Grain reads its absl flags while it iterates and fails where nobody has parsed any (a notebook, a test).
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
