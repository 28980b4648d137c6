"""From ten annotators' votes to what a network learns: the target rules of FER+.

Barsoum, Zhang, Canton Ferrer and Zhang, "Training deep networks for facial expression recognition with
crowd-sourced label distribution" (ICMI 2016), as their released code has it. Scores under FER+ do not compare
unless the vote file and the rule agree: always report the number of test pictures.

Votes are integers `[N, 10]` in the order of `labels.FERPLUS_VOTES`, the last two columns "unknown" and "not a
face". All comparisons are between integers, so no rounding decides about a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from fer_jax.errors import UserError, nearest
from fer_jax.labels import EMOTIONS, FERPLUS_VOTES

NUM_CLASSES = len(EMOTIONS)


def ferplus_targets(
    votes: Int[np.ndarray, "N 10"], rule: str
) -> tuple[Bool[np.ndarray, " N"], Float[np.ndarray, "N 8"]]:
    """Applies one of FER+'s rules to the votes.

    Rules:
      majority: the top class must have more than half of the votes. One-hot.
      probability, cross_entropy: the most voted classes, until they hold three quarters of the votes. The
        first draws one class at each visit, the second learns the distribution; their targets are equal.
      multi_target: all classes with at least 30 % of the votes; the loss counts each of them as right.
      argmax: the first of the most voted columns, a weaker rule that many papers follow. One-hot.
      votes: the votes for emotions as they are.
    All but the last two set single votes to zero first, as outliers.

    Args:
      votes: counts per column of `FERPLUS_VOTES`.
      rule: one of `RULES`.

    Returns:
      Which pictures the rule keeps, and their float32 distribution over eight emotions (zeros where dropped).
    """
    votes = _checked(votes)
    if rule not in RULES:
        raise UserError(f"there is no FER+ target rule '{rule}': {nearest(rule, RULES)}")
    chosen = RULES[rule](votes)  # [N, 10] votes of the classes that count, all zero where rejected
    emotions = chosen[:, :NUM_CLASSES]
    # Step 3 of the code: a picture is dropped when "unknown" or "not a face" leads what is left.
    keep = (chosen.max(axis=1) > 0) & (chosen.argmax(axis=1) < NUM_CLASSES)
    return keep, _normalised(emotions * keep[:, None])


def vote_distribution(votes: Int[np.ndarray, "N 10"]) -> Float[np.ndarray, "N 8"]:
    """Returns the raw votes for emotions as a float32 distribution; zeros where nobody voted for any."""
    return _normalised(_checked(votes)[:, :NUM_CLASSES])


def _without_outliers(votes: np.ndarray) -> np.ndarray:
    return np.where(votes > 1, votes, 0)  # step 1 of the code


def _majority(votes: np.ndarray) -> np.ndarray:
    votes = _without_outliers(votes)
    return _leader(votes) * (2 * votes.max(axis=1) > votes.sum(axis=1))[:, None]


def _argmax(votes: np.ndarray) -> np.ndarray:
    return _leader(votes)


def _as_they_are(votes: np.ndarray) -> np.ndarray:
    return votes


def _multi_target(votes: np.ndarray) -> np.ndarray:
    votes = _without_outliers(votes)
    total = votes.sum(axis=1, keepdims=True)
    chosen = np.where(10 * votes >= 3 * total, votes, 0)
    return chosen * (2 * chosen.sum(axis=1, keepdims=True) > total)


def _cross_entropy(votes: np.ndarray) -> np.ndarray:
    """Takes classes from the most voted down, those of equal votes together, until enough votes are taken.

    The authors' loops over one picture, run for all pictures at a time. `active` says whose loop goes on.
    """
    left = _without_outliers(votes)
    total = left.sum(axis=1)
    chosen = np.zeros_like(left)
    taken, count = np.zeros_like(total), np.zeros_like(total)
    only_emotions = np.ones(len(left), bool)
    for _ in range(3):  # every round takes at least one class, and the loop ends at three
        active = (4 * taken < 3 * total) & (count < 3) & only_emotions
        top = left.max(axis=1)
        for column in range(left.shape[1]):
            take = active & (left[:, column] == top)
            chosen[take, column] = top[take]
            left[take, column] = 0
            taken += np.where(take, top, 0)
            count += take
            if column >= NUM_CLASSES:
                # "Unknown" and "not a face" end the search, and give way to emotions that came before them.
                # Their votes stay in `taken`, as in the code.
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
    "argmax": _argmax,
    "votes": _as_they_are,
}


def _leader(votes: np.ndarray) -> np.ndarray:
    """Returns 1 in the first column with the most votes, zeros in rows without votes."""
    first = np.arange(votes.shape[1]) == votes.argmax(axis=1)[:, None]
    return (first & (votes > 0)).astype(np.int64)


def _normalised(votes: np.ndarray) -> np.ndarray:
    total = np.maximum(votes.sum(axis=1, keepdims=True), 1)
    return (votes / total).astype(np.float32)


def _checked(votes: np.ndarray) -> np.ndarray:
    votes = np.asarray(votes)
    if votes.ndim != 2 or votes.shape[1] != len(FERPLUS_VOTES):
        raise UserError(
            f"votes have shape {votes.shape}, not [N, {len(FERPLUS_VOTES)}]: the columns are {', '.join(FERPLUS_VOTES)}"
        )
    return votes.astype(np.int64)
