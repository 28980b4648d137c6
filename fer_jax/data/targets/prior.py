"""Prior distributions for label smoothing: which other emotions annotators see in a face of a given class.

PDLS (Vo et al., IEEE Access 2020): instead of the uniform distribution, a smoothed label is mixed with row y of a
matrix D, the mean vote distribution of the faces whose majority class is y. D was estimated once, on the training split
of FER+, and serves other data sets by the names of their classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from fer_jax.data.targets.votes import vote_distribution
from fer_jax.errors import UserError
from fer_jax.labels import ALIASES, EMOTIONS

PRIORS = ("uniform", "ferplus", "votes")

# The authors' constant, rounded: given the row's class, the votes of FER+'s annotators. Columns and rows: EMOTIONS.
FERPLUS = np.array(
    [
        [0.7773, 0.0326, 0.0174, 0.1141, 0.0262, 0.0071, 0.0044, 0.0208],
        [0.0428, 0.9176, 0.0232, 0.0048, 0.0042, 0.0020, 0.0018, 0.0036],
        [0.0584, 0.0358, 0.7873, 0.0104, 0.0143, 0.0030, 0.0885, 0.0024],
        [0.1701, 0.0133, 0.0086, 0.7479, 0.0228, 0.0112, 0.0159, 0.0101],
        [0.0748, 0.0254, 0.0602, 0.0319, 0.7406, 0.0349, 0.0233, 0.0090],
        [0.0896, 0.0174, 0.0169, 0.0886, 0.1252, 0.6208, 0.0078, 0.0337],
        [0.0428, 0.0122, 0.1695, 0.0726, 0.0272, 0.0130, 0.6590, 0.0037],
        [0.1479, 0.0222, 0.0099, 0.0429, 0.0336, 0.0599, 0.0055, 0.6781],
    ]
)


def prior_matrix(
    kind: str, classes: Sequence[str], votes: Int[np.ndarray, "N 10"] | None, *, literal: bool = False
) -> Float[np.ndarray, "C C"]:
    """Returns D over any choice and order of emotions: row y is the distribution that a label of class y is mixed with.

    Args:
        kind: 'ferplus' (the published table), or 'votes' (estimated from the votes of the training examples).
        classes: names of the data set's classes.
        votes: of the training examples, counts per column of `labels.FERPLUS_VOTES`, or None where there are none.
        literal: leave the rows as the authors' code does where classes are missing: they then sum to a little less
            than 1. Otherwise they are normalised again.

    Raises:
        UserError: for classes that FER+ does not know, and for 'votes' without votes.
    """
    if kind == "votes" and votes is None:
        raise UserError(
            "config.data.smoothing_prior='votes': this data set has no votes; give 'ferplus' for those of FER+"
        )
    names = [ALIASES.get(name.lower()) for name in classes]
    for written, name in zip(classes, names, strict=True):
        if name is None:
            raise UserError(
                f"config.data.smoothing_prior='{kind}' knows {', '.join(EMOTIONS)}, not '{written}': give 'uniform'"
            )
    table = FERPLUS if kind == "ferplus" or votes is None else vote_prior(votes)
    index = [EMOTIONS.index(name) for name in names if name is not None]
    rows = table[np.ix_(index, index)]
    return rows if literal else rows / rows.sum(axis=1, keepdims=True)


def vote_prior(votes: Int[np.ndarray, "N 10"]) -> Float[np.ndarray, "8 8"]:
    """Estimates the matrix from votes, in the way that gives the published one on FER+'s training split.

    An example counts for the emotion that has at least half of all its votes, "unknown" and "not a face" included, and
    adds its distribution over the emotions, single votes too. An emotion without examples keeps its label whole.
    """
    label = votes.argmax(axis=1)
    decided = (2 * votes.max(axis=1) >= votes.sum(axis=1)) & (votes.max(axis=1) > 0)
    distribution = vote_distribution(votes)
    prior = np.eye(len(EMOTIONS))
    for emotion in range(len(EMOTIONS)):
        if (members := decided & (label == emotion)).any():
            prior[emotion] = distribution[members].mean(axis=0)
    return prior
