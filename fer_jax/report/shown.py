"""What the sections on a method's inside are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shown:
    """A few examples as the selected model saw them.

    Attributes:
        classes: names of the classes.
        labels: int [n], the true ones.
        logits: float32 [n, C]; C = 0 where the method predicts no classes.
        values: by name, what `Method.shown` lists, float32 [n, ...].
        fields: by name, the stored fields of these examples (`image`, `landmarks`, ...). Of clips those per frame, here
            and among `values`, are one list over all clips, `length` frames of each.
        occluded: the same examples behind objects, where they are evaluated too.
    """

    classes: Sequence[str]
    labels: np.ndarray
    logits: np.ndarray
    values: Mapping[str, np.ndarray]
    fields: Mapping[str, np.ndarray]
    occluded: Shown | None = None
