"""Ten simulated annotators per picture, as in FER+.

On average they confuse emotions as FER+'s crowd did (`PRIOR`); in a weak expression more than in a strong
one, and then above all with neutral.
"""

from __future__ import annotations

import numpy as np

from fer_jax.data.targets.prior import FERPLUS
from fer_jax.randomness import Stream

NUM_VOTES = 10

# Mean vote distribution of FER+ (columns) given the majority emotion (rows), without contempt, which is not drawn.
PRIOR = FERPLUS[:7]
UNKNOWN_RATE = 0.010
NO_FACE_RATE = 0.003
NEUTRAL_SLOPE = 3.0  # how much faster votes for neutral fall with intensity
OTHER_SLOPE = 1.5


def vote_distribution(
    first: np.ndarray, second: np.ndarray, intensity: np.ndarray, mean_intensity: float
) -> np.ndarray:
    """Returns what one annotator says, [B, 10], rows summing to one.

    Every confusion is linear in the intensity, so the average over pictures of mean intensity
    `mean_intensity` is the FER+ prior again.

    Args:
      first: [B] basic emotion (canonical column 0..6).
      second: [B] the other emotion of a compound expression, or `first` again; it takes a third of the mass.
      intensity: [B] 0..1; for neutral pictures it has no effect.
    """
    own = np.eye(8)[first]
    prior = PRIOR[first] / _row_sum(PRIOR[first])
    weaker = np.where(first == 0, 0.0, (mean_intensity - intensity) / mean_intensity)[:, None]
    is_neutral = np.arange(8) == 0
    slope = np.where(is_neutral, 1 + NEUTRAL_SLOPE * weaker, 1 + OTHER_SLOPE * weaker)
    confused = np.maximum(np.where(own > 0, 0.0, prior * slope), 0.0)
    votes = confused + own * (1 - _row_sum(confused))
    other = np.eye(8)[second]
    votes = np.where((first == second)[:, None], votes, votes * (2 / 3) + other * (1 / 3))
    valid = votes * (1 - UNKNOWN_RATE - NO_FACE_RATE)
    tail = np.broadcast_to([UNKNOWN_RATE, NO_FACE_RATE], (len(votes), 2))
    return np.concatenate([valid, tail], axis=1)


def _row_sum(table: np.ndarray) -> np.ndarray:
    """Adds columns from left to right: the order of NumPy's own sum may differ between machines."""
    total = table[:, :1].copy()
    for column in range(1, table.shape[1]):
        total = total + table[:, column : column + 1]
    return total


def vote(stream: Stream, distribution: np.ndarray) -> np.ndarray:
    """Returns the counts of ten independent votes, [B, 10] int64."""
    draws = stream.uniform(size=NUM_VOTES)
    counts = np.zeros(distribution.shape, np.int64)
    chosen = np.zeros(draws.shape, np.int64)
    level = np.zeros(len(draws))
    for column in range(distribution.shape[1] - 1):
        level = level + distribution[:, column]
        chosen += draws >= level[:, None]
    for k in range(distribution.shape[1]):
        for n in range(NUM_VOTES):
            counts[:, k] += chosen[:, n] == k
    return counts
