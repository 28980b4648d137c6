"""What two arms differ by over seeds: per-example values of measures, intervals, equivalence and verdicts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import stdtr, stdtrit
from scipy.stats import rankdata

DRAWS = 2000  # of the bootstrap over people
LEVEL = 0.05
Values = Float[np.ndarray, " N"]


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean difference over seeds.

    Attributes:
        by_seed: the difference of each seed; `mean` is theirs.
        interval: 95 %.
        p: of no difference, two-sided.
        p_same: of a difference as large as the margin, the larger one of two one-sided tests (Schuirmann 1987).
    """

    by_seed: tuple[float, ...]
    mean: float
    interval: tuple[float, float]
    p: float
    p_same: float


def difference(
    sums: Sequence[Float[np.ndarray, " P"]], counts: Sequence[Float[np.ndarray, " P"]], margin: float, new_faces: bool
) -> Difference:
    """Compares two arms by Student's t over seeds, whose standard error minds the people of the tests.

    Where each seed tests other people, the spread over seeds has that of the people in it, but few seeds may agree by
    chance: the standard error is not below that of a bootstrap over the people within each seed. Where all seeds test
    the same faces, the bootstrap draws the same ones for all of them, and its variance is added.

    Args:
        sums: for each seed the sum over each person's examples of the value of one arm less that of the other.
        counts: for each seed the number of examples of each person.
        margin: a difference smaller than this does not matter.
        new_faces: whether each seed tests other people.
    """
    by_seed = [float(s.sum() / c.sum()) for s, c in zip(sums, counts, strict=True)]
    seeds, drawn = len(by_seed), np.zeros(DRAWS)
    for number, (s, c) in enumerate(zip(sums, counts, strict=True)):
        times = _draws(len(c), number if new_faces else 0)
        drawn += (times @ s) / (times @ c) / seeds
    of_seeds, of_people = np.var(by_seed, ddof=1) / seeds, np.var(drawn, ddof=1)
    error = max(np.sqrt(max(of_seeds, of_people) if new_faces else of_seeds + of_people), 1e-12)
    mean, half = float(np.mean(by_seed)), stdtrit(seeds - 1, 1 - LEVEL / 2) * error
    p, p_same = 2 * stdtr(seeds - 1, -abs(mean) / error), stdtr(seeds - 1, (abs(mean) - margin) / error)
    return Difference(tuple(by_seed), mean, (float(mean - half), float(mean + half)), float(p), float(p_same))


@functools.lru_cache(maxsize=32)
def _draws(people: int, seed: int) -> np.ndarray:
    """Returns how often each person is drawn, [DRAWS, people]."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(people, np.full(people, 1 / people), size=DRAWS).astype(np.float32)


def verdict(mean: float, p: float, p_same: float, better: str) -> str:
    """Returns what a difference says of a claim that wants it 'higher' or 'lower'.

    A difference that is smaller than the margin is no effect, even where it is one beyond chance. The p-values are
    those of `Difference`, corrected for the number of comparisons.
    """
    if p_same < LEVEL:
        return "no effect"
    if p >= LEVEL:
        return "undecided"
    return "supported" if (mean > 0) == (better == "higher") else "opposite"


def ratio_values(part: Values, whole: Values) -> Values:
    """Returns values whose mean is sum(part) / sum(whole), and whose spread over people is that of the ratio.

    They are its linearization: a person's weight in the ratio is what the person adds to `whole`.
    """
    ratio = part.sum() / whole.sum()
    return ratio + (part - ratio * whole) / whole.mean()


def roc_auc(positive: Bool[np.ndarray, " N"], scores: Values) -> float:
    """Returns the area under the ROC curve: the chance that a positive ranks higher."""
    count, ranks = int(positive.sum()), rankdata(scores)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores) - count)))


def auc_values(
    positive: Bool[np.ndarray, " N"], scores: Values, counted: Bool[np.ndarray, " N"] | None = None
) -> Values:
    """Returns values whose mean is the area under the ROC curve, over the examples that are counted.

    Each example has the share of the other kind that it is ranked rightly against (DeLong 1988); sums over people of
    such values give the variance of clustered examples (Obuchowski 1997).
    """
    counted = np.ones(len(positive), bool) if counted is None else counted
    yes, ranks = positive[counted], rankdata(scores[counted])
    rightly = np.empty(len(yes))
    rightly[yes] = (ranks[yes] - rankdata(ranks[yes])) / (~yes).sum()
    rightly[~yes] = 1 - (ranks[~yes] - rankdata(ranks[~yes])) / yes.sum()
    area = rightly[yes].mean()
    values = np.full(len(positive), area)
    values[counted] += len(positive) * (rightly - area) / np.where(yes, yes.sum(), (~yes).sum())
    return values
