"""Prior distributions for label smoothing: which other emotions annotators see in a face of a given class.

PDLS (Vo et al., IEEE Access 2020) mixes a label of class y not with the uniform distribution but with row y of a
matrix D: the mean vote distribution of the faces whose majority class is y. D was estimated once, on the training split
of FER+; other data sets use it by the names of their classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from fer_jax.data.targets.votes import vote_distribution
from fer_jax.errors import UserError
from fer_jax.labels import ALIASES, EMOTIONS

# The authors' rounded constant: the votes of FER+'s annotators, given the class of the row. Both axes: EMOTIONS.
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
    kind: str, classes: Sequence[str], votes: Integer[np.ndarray, "N 10"] | None, *, literal: bool = False
) -> Float[np.ndarray, "C C"]:
    """Returns D for any selection and order of emotions: a label of class y is mixed with the distribution in row y.

    Args:
        kind: 'ferplus' (the published table) or 'votes' (estimated from the votes of the training examples).
        classes: names of the data set's classes.
        votes: counts of the training examples per column of `labels.FERPLUS_VOTES`; None if the data set has no votes.
        literal: if classes are missing, leave the rows as in the authors' code, where they sum to a little less than
            1; otherwise they are normalized again.

    Raises:
        UserError: for classes that FER+ does not have, and for 'votes' without votes.
    """
    if kind == "votes" and votes is None:
        raise UserError(
            "config.data.smoothing_prior='votes': this data set has no votes; give 'ferplus' for those of FER+"
        )
    index = emotion_indices(classes, f"config.data.smoothing_prior='{kind}'", "uniform")
    table = FERPLUS if kind == "ferplus" or votes is None else vote_prior(votes)
    rows = table[np.ix_(index, index)]
    return rows if literal else rows / rows.sum(axis=1, keepdims=True)


def emotion_indices(classes: Sequence[str], field: str, alternative: str) -> list[int]:
    """Returns the index of each class in `labels.EMOTIONS`; raises UserError, proposing `alternative`, for others."""
    for name in classes:
        if name.lower() not in ALIASES:
            raise UserError(f"{field} needs classes among {', '.join(EMOTIONS)}, not '{name}': give '{alternative}'")
    return [EMOTIONS.index(ALIASES[name.lower()]) for name in classes]


def vote_prior(votes: Integer[np.ndarray, "N 10"]) -> Float[np.ndarray, "8 8"]:
    """Estimates the matrix from votes; on FER+'s training split this reproduces the published one.

    An example counts for the emotion with at least half of all its votes, including "unknown" and "not a face", and
    contributes its distribution over the emotions, single votes included. The row of an emotion without examples is
    one-hot.
    """
    label = votes.argmax(axis=1)
    decided = (2 * votes.max(axis=1) >= votes.sum(axis=1)) & (votes.max(axis=1) > 0)
    distribution = vote_distribution(votes)
    prior = np.eye(len(EMOTIONS))
    for emotion in range(len(EMOTIONS)):
        if (members := decided & (label == emotion)).any():
            prior[emotion] = distribution[members].mean(axis=0)
    return prior
