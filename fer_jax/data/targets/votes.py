"""The target rules of FER+: from the votes of ten annotators to a training target.

Barsoum, Zhang, Canton Ferrer and Zhang, "Training deep networks for facial expression recognition with crowd-sourced
label distribution" (ICMI 2016), as in their released code. Scores on FER+ are comparable only if the vote file and the
rule are the same: always report the number of test images.

Votes are integers [N, 10] in the order of `labels.FERPLUS_VOTES`; the last two columns are "unknown" and "not a face".
All comparisons are between integers, so rounding never decides about an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Integer

from fer_jax.labels import EMOTIONS

NUM_CLASSES = len(EMOTIONS)


def ferplus_targets(
    votes: Integer[np.ndarray, "N 10"], rule: str
) -> tuple[Bool[np.ndarray, " N"], Float[np.ndarray, "N 8"]]:
    """Applies one of FER+'s rules to the votes.

    Rules:
        majority: the top class must have more than half of the votes. One-hot.
        probability, cross_entropy: the top classes that together hold three quarters of the votes. Training draws one
            class per epoch for the first and learns the distribution for the second; their targets are equal.
        multi_target: all classes with at least 30 % of the votes; the loss accepts each of them.
        argmax: the first of the most voted columns, a weaker rule that many papers follow. One-hot.
        votes: the votes for emotions as they are.
    All but the last two first set single votes to zero, as outliers.

    Args:
        votes: counts per column of `labels.FERPLUS_VOTES`.
        rule: one of `RULES`.

    Returns:
        Which images the rule keeps, and their float32 distribution over eight emotions (zeros for dropped images).
    """
    chosen = RULES[rule](votes.astype(np.int64))  # [N, 10] votes of the chosen classes, all zero if rejected
    # Step 3 of the code: an image is dropped if "unknown" or "not a face" leads among the chosen ones.
    keep = (chosen.max(axis=1) > 0) & (chosen.argmax(axis=1) < NUM_CLASSES)
    return keep, _normalized(chosen[:, :NUM_CLASSES] * keep[:, None])


def vote_distribution(votes: Integer[np.ndarray, "N 10"]) -> Float[np.ndarray, "N 8"]:
    """Returns the raw votes for emotions as a float32 distribution; zeros if nobody voted for an emotion."""
    return _normalized(votes[:, :NUM_CLASSES].astype(np.int64))


def _without_outliers(votes: np.ndarray) -> np.ndarray:
    return np.where(votes > 1, votes, 0)  # step 1 of the code


def _majority(votes: np.ndarray) -> np.ndarray:
    votes = _without_outliers(votes)
    return _leader(votes) * (2 * votes.max(axis=1) > votes.sum(axis=1))[:, None]


def _multi_target(votes: np.ndarray) -> np.ndarray:
    votes = _without_outliers(votes)
    total = votes.sum(axis=1, keepdims=True)
    chosen = np.where(10 * votes >= 3 * total, votes, 0)
    return chosen * (2 * chosen.sum(axis=1, keepdims=True) > total)


def _cross_entropy(votes: np.ndarray) -> np.ndarray:
    """Takes the most voted classes in turn, those with equal votes together, until they hold enough votes.

    This is the authors' loop over one image, run for all images at once; `active` marks those whose loop continues.
    """
    left = _without_outliers(votes)
    total = left.sum(axis=1)
    chosen = np.zeros_like(left)
    taken, count = np.zeros_like(total), np.zeros_like(total)
    only_emotions = np.ones(len(left), bool)
    for _ in range(3):  # each round takes at least one class, and three classes end the loop
        active = (4 * taken < 3 * total) & (count < 3) & only_emotions
        top = left.max(axis=1)
        for column in range(left.shape[1]):
            take = active & (left[:, column] == top)
            chosen[take, column] = top[take]
            left[take, column] = 0
            taken += np.where(take, top, 0)
            count += take
            if column >= NUM_CLASSES:
                # "Unknown" and "not a face" end the search and are undone if emotions were taken before them.
                # Their votes stay in `taken`, as in the authors' code.
                only_emotions &= ~take
                undo = take & (chosen.sum(axis=1) > top)
                chosen[undo, column] = 0
                count -= undo
                active &= ~take
    accepted = (2 * chosen.sum(axis=1) > total) & (count <= 3)
    return chosen * accepted[:, None]


RULES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "majority": _majority,
    "probability": _cross_entropy,
    "cross_entropy": _cross_entropy,
    "multi_target": _multi_target,
    "argmax": lambda votes: _leader(votes),
    "votes": lambda votes: votes,
}


def _leader(votes: np.ndarray) -> np.ndarray:
    """Returns 1 in the first column with the most votes; rows without votes are zero."""
    first = np.arange(votes.shape[1]) == votes.argmax(axis=1)[:, None]
    return (first & (votes > 0)).astype(np.int64)


def _normalized(votes: np.ndarray) -> np.ndarray:
    total = np.maximum(votes.sum(axis=1, keepdims=True), 1)
    return (votes / total).astype(np.float32)
