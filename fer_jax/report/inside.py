"""What a method shows of its inside on a few test examples: each method's own section of the report.

A method names in `Method.shown` the intermediates (or fields of its input, such as 'image') that it wants drawn. A
drawer below makes a section of them; the names alone decide which one, so the report knows no method.
"""

from __future__ import annotations

from collections.abc import Callable

from fer_jax.report import clips, gates, pyramid, words
from fer_jax.report.markup import Html, join
from fer_jax.report.pictures import Book
from fer_jax.report.shown import Shown

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
