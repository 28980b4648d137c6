"""Prior distributions for label smoothing: which other emotions annotators see in a face of a given class.

PDLS (Vo et al., IEEE Access 2020) mixes a label of class y not with the uniform distribution but with row y of a
matrix D: the mean vote distribution of the faces whose majority class is y. D was estimated once, on the training split
of FER+; other data sets use it by the names of their classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

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


def prior_matrix(classes: Sequence[str]) -> Float[np.ndarray, "C C"]:
    """Returns D for any selection and order of emotions: a label of class y is mixed with the distribution in row y.

    If classes are missing, the rows are normalized again; the authors' code leaves them at a little less than 1.

    Raises:
        UserError: for classes that FER+ does not have.
    """
    index = emotion_indices(classes, "config.data.smoothing_prior='ferplus'", "uniform")
    rows = FERPLUS[np.ix_(index, index)]
    return rows / rows.sum(axis=1, keepdims=True)


def emotion_indices(classes: Sequence[str], field: str, alternative: str) -> list[int]:
    """Returns the index of each class in `labels.EMOTIONS`; raises UserError, proposing `alternative`, for others."""
    for name in classes:
        if name.lower() not in ALIASES:
            raise UserError(f"{field} needs classes among {', '.join(EMOTIONS)}, not '{name}': give '{alternative}'")
    return [EMOTIONS.index(ALIASES[name.lower()]) for name in classes]
