"""What a method shows of its inside on a few test examples: each method's own section of the report.

A method names in `SHOWN` the intermediates (or fields of its input, such as 'image') that it wants seen. A drawer below
makes a section out of them; which one is decided by the names alone, so the report knows no method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fer_jax.evaluation.report import clips, gates, pyramid, words
from fer_jax.evaluation.report.markup import Html, join
from fer_jax.evaluation.report.pictures import Book


@dataclass(frozen=True)
class Shown:
    """A few examples as the selected model saw them.

    Attributes:
        classes: names of the classes.
        labels: int [n], the true ones.
        logits: float32 [n, C]; C = 0 where the method predicts no classes.
        values: by name, what the method's SHOWN lists, float32 [n, ...].
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


Drawer = Callable[[Book, Shown], Html]

DRAWERS: tuple[tuple[frozenset[str], Drawer], ...] = (
    (frozenset({"frame_weights"}), clips.frame_weights),
    (frozenset({"points", "alpha"}), gates.draw_gates),
    (frozenset({"similarity", "word_similarity"}), words.draw),
    (frozenset({"half", "bicubic", "super_resolved"}), pyramid.draw),
)


def inside(book: Book, shown: Shown | None) -> Html:
    """Draws the sections for which all the names are there."""
    if shown is None:
        return Html()
    return join([draw(book, shown) for names, draw in DRAWERS if names <= set(shown.values)])
