"""The order of examples, determined by Grain: the same for data in device memory and for streamed data."""

from __future__ import annotations

import collections
import concurrent.futures
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grain
import numpy as np
from absl import flags

STREAM_AHEAD = 4  # batches gathered, and put on the device, before they are asked for
STREAM_THREADS = 2  # one may wait for the disk or the device while the other decodes
Item = TypeVar("Item")


def index_batches(
    num_examples: int, batch_size: int, seed: int, *, labels: np.ndarray | None = None
) -> grain.MapDataset:
    """Returns the batches of all epochs as a random-access data set: element `s` is the int32 [B] rows of step `s`.

    Each epoch is a fresh permutation. A batch may span two epochs, so that no example is dropped. Any step can be asked
    for directly, so resuming needs only the step number.

    Args:
        num_examples: rows to draw from.
        batch_size: global batch size B.
        seed: decides the permutations.
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
    return rows.batch(batch_size, drop_remainder=True, batch_fn=lambda values: np.asarray(values, np.int32))


class Stream(Iterator[Item]):
    """Yields `gather(batches[step])` for each step from `start_step` on, prepared ahead by background threads.

    It stops at the end of `batches`. An exception in a thread is raised when its element is requested.

    Args:
        batches: a sequence: elements by number, and a length.
        start_step: number of the first element.
        gather: called in the threads, for several elements at once.
        ahead: how many elements are prepared before they are requested.
    """

    def __init__(self, batches: Any, start_step: int, gather: Callable[[Any], Item], ahead: int = STREAM_AHEAD):
        self._batches, self._gather, self._ahead = batches, gather, ahead
        self._next = start_step
        self._pool = concurrent.futures.ThreadPoolExecutor(STREAM_THREADS, "gathers batches")
        self._made: collections.deque[concurrent.futures.Future[Item]] = collections.deque()

    def __next__(self) -> Item:
        while len(self._made) <= self._ahead and not self._ended():
            self._made.append(self._pool.submit(self._make, self._next))
            self._next += 1
        if not self._made:
            self.close()
            raise StopIteration
        try:
            return self._made.popleft().result()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drops what was prepared ahead; each thread ends after its current element."""
        self._next = sys.maxsize
        self._made.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _make(self, step: int) -> Item:
        return self._gather(self._batches[step])

    def _ended(self) -> bool:
        return self._next >= len(self._batches)


def eval_batches(num_examples: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (rows, mask) [batch_size] that cover every example exactly once; row 0 pads the last batch."""
    for start in range(0, num_examples, batch_size):
        rows = np.arange(start, start + batch_size, dtype=np.int32)
        mask = rows < num_examples
        yield np.where(mask, rows, 0).astype(np.int32), mask


def _mark_flags() -> None:
    # Grain reads its absl flags while it iterates and fails if they are not parsed (a notebook, a test).
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
