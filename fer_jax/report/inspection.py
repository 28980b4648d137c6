"""What the sections on a method's intermediates are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Inspection:
    """A few examples as the selected model sees them.

    Attributes:
        classes: names of the classes.
        labels: int [n], the true ones.
        logits: float32 [n, C]; C = 0 if the method predicts no classes.
        values: the intermediates that the method shows, by name, float32 [n, ...].
        fields: the stored fields of these examples (`image`, `landmarks`, ...) by name. Fields and values per frame are
            one list over all clips, `length` frames of each.
        occluded: the same examples behind objects, if those are evaluated too.
    """

    classes: Sequence[str]
    labels: np.ndarray
    logits: np.ndarray
    values: Mapping[str, np.ndarray]
    fields: Mapping[str, np.ndarray]
    occluded: Inspection | None = None
