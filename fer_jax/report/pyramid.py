"""The sizes in which a pyramid network sees a face: aligned, halved, and brought back to full size in two ways."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fer_jax.report.markup import Html, figure_card, section
from fer_jax.report.pictures import Book
from fer_jax.report.shown import Shown
from fer_jax.report.style import INK, SOFT, new_figure, wrapped

ROWS = 8
SIDE, LEFT, TOP = 112, 84, 40  # CSS pixels
COLUMNS = {
    "image": "input",
    "aligned": "aligned",
    "half": "reduced",
    "bicubic": "bicubic",
    "super_resolved": "super-resolved",
}


def draw(book: Book, shown: Shown) -> Html:
    """A row of pictures for a few examples; the columns are those of COLUMNS that the method has."""
    names = [name for name in COLUMNS if name in shown.values]
    rows = np.linspace(0, len(shown.labels) - 1, min(ROWS, len(shown.labels))).round().astype(int)
    labels = [shown.classes[int(shown.labels[row])] for row in rows]
    pictures = [[shown.values[name][row] for name in names] for row in rows]
    figure = grid(pictures, labels, [COLUMNS[name] for name in names])
    alt = f"Faces of {', '.join(labels)}, each as {', '.join(COLUMNS[name] for name in names)}"
    card = figure_card(
        "From size to size",
        "All pictures of a row in the same scale of brightness; black and white are those of its input.",
        book.chart("pyramid", figure, alt),
        wide=True,
    )
    return section("The pyramid", "What each branch of the network is given to see.", card)


def grid(pictures: list[list[np.ndarray]], labels: list[str], titles: list[str]) -> Figure:
    """Float pictures [S, S, 3] of any range, the first of a row giving its scale, under titles and beside labels."""
    width, height = LEFT + SIDE * len(titles), TOP + SIDE * len(pictures)
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    for row, (label, seen) in enumerate(zip(labels, pictures, strict=True)):
        low, high = float(seen[0].min()), float(seen[0].max())
        for column, picture in enumerate(seen):
            left, bottom = LEFT + SIDE * column, height - TOP - SIDE * (row + 1)
            axes = figure.add_axes((left / width, bottom / height, (SIDE - 6) / width, (SIDE - 6) / height))
            # Outside of the input's range, where interpolation overshoots, it stays black or white.
            axes.imshow(np.clip((picture - low) / max(high - low, 1e-6), 0, 1), interpolation="nearest")
            axes.set_axis_off()
            if row == 0:
                side = picture.shape[0]
                middle = (left + SIDE / 2 - 3) / width
                figure.text(middle, 1 - 18 / height, titles[column], ha="center", fontsize=7.6, color=INK)
                figure.text(middle, 1 - 33 / height, f"{side} x {side}", ha="center", fontsize=7, color=SOFT)
        middle = (height - TOP - SIDE * (row + 0.5)) / height
        figure.text((LEFT - 8) / width, middle, wrapped(label), ha="right", va="center", fontsize=8.4, color=INK)
    return figure
