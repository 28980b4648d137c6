"""Random numbers and elementary functions that are the same on every machine, OS and NumPy version.

NumPy promises that the raw words of a bit generator never change, and promises nothing about the
distributions built on them; libm promises nothing about its last bit. So everything here starts from raw
Philox words and uses only operations that IEEE 754 rounds exactly.
"""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import ArrayLike

PI = 3.141592653589793


class Purpose(enum.IntEnum):
    """Independent random streams of one example (or, for `SUBJECT`, of one person)."""

    SUBJECT = 1
    EXPRESSION = 2
    VIEW = 3
    BACKGROUND = 4
    CAMERA = 5
    PIXELS = 6
    VOTES = 7
    OCCLUDER = 8
    CLIP = 9
    COPY = 10  # occluded copies of any data set
    LABEL_NOISE = 11  # of any data set
    DEGRADATION = 12  # likewise


def raw_words(seed: int, purpose: Purpose, index: int, frame: int, count: int) -> np.ndarray:
    """Returns `count` uint64 words that depend on the four integers and on nothing else."""
    counter = np.array([0, index, frame, 0], np.uint64)
    key = np.array([seed, int(purpose)], np.uint64)
    return np.random.Philox(counter=counter, key=key).random_raw(count)


class Stream:
    """Uniform numbers for B examples, drawn in lockstep: example i never sees who else is in the batch."""

    def __init__(self, seed: int, purpose: Purpose, indices: ArrayLike, frames: ArrayLike = 0, capacity: int = 128):
        pairs = np.stack(np.broadcast_arrays(np.asarray(indices), np.asarray(frames)), axis=-1)
        words = [raw_words(seed, purpose, int(i), int(f), capacity) for i, f in pairs]
        self._uniform = (np.array(words, np.uint64) >> np.uint64(11)) * 2.0**-53
        self._next = 0

    def uniform(self, low: ArrayLike = 0.0, high: ArrayLike = 1.0, size: int | None = None) -> np.ndarray:
        """Returns float64 in [low, high): [B], or [B, size]."""
        count = 1 if size is None else size
        if self._next + count > self._uniform.shape[1]:
            raise ValueError(f"the stream holds {self._uniform.shape[1]} numbers per example; raise `capacity`")
        values = self._uniform[:, self._next : self._next + count]
        self._next += count
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        return low + (high - low) * (values[:, 0] if size is None else values)

    def chance(self, probability: ArrayLike) -> np.ndarray:
        """Returns [B] booleans, true with the given probability."""
        return self.uniform() < probability

    def integer(self, stop: int) -> np.ndarray:
        """Returns [B] int64 in 0 .. stop-1."""
        return (self.uniform() * stop).astype(np.int64)


def sine(angle: ArrayLike) -> np.ndarray:
    """Returns the sine of radians (float64, error below 1e-9): a polynomial, since libm's last bit varies."""
    turns = np.asarray(angle, np.float64) / (2 * PI)
    x = (turns - np.floor(turns + 0.5)) * (2 * PI)  # [-pi, pi)
    x = np.where(x > PI / 2, PI - x, np.where(x < -PI / 2, -PI - x, x))
    s = x * x
    series = 1 + s * (-1 / 6 + s * (1 / 120 + s * (-1 / 5040 + s * (1 / 362880 + s * (-1 / 39916800)))))
    return x * (series + s * s * s * s * s * s / 6227020800)


def cosine(angle: ArrayLike) -> np.ndarray:
    """Returns the cosine of radians."""
    return sine(np.asarray(angle, np.float64) + PI / 2)
