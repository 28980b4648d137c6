"""The section of a method that maps faces to words: how alike the words are, and where the faces come to lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from fer_jax.report.markup import Html, element, figure_card, section
from fer_jax.report.pictures import Book
from fer_jax.report.shown import Shown
from fer_jax.report.style import BLUE, INK, SOFT, new_figure, wrapped

_COSINE = LinearSegmentedColormap.from_list("cosine", ("#ffffff", "#cfdef3", "#7ea4db", BLUE, "#173a73"))


def draw(book: Book, shown: Shown) -> Html:
    """Cosines between the class words beside the mean cosine of each class's faces with each word.

    Reads `word_similarity` [n, C, C], the same for every example, and `similarity` [n, C].
    """
    words, cosines = shown.values["word_similarity"][0], shown.values["similarity"]
    faces = np.full(words.shape, np.nan)
    for c in np.unique(shown.labels):
        faces[c] = cosines[shown.labels == c].mean(axis=0)
    alt = "Mean cosine with the own word: " + "; ".join(
        f"{name}, {faces[c, c]:.2f}" for c, name in enumerate(shown.classes) if np.isfinite(faces[c, c])
    )
    image = book.chart("words", words_chart(words, faces, shown.classes), alt)
    explanation = (
        f"Left, how alike the words of the classes are. Right, the mean cosine between the network's output and each "
        f"word, over {len(shown.labels):,} test images. A network that has learned all that the words say about a face "
        "draws the left picture on the right; one row like another means that the classes collapse."
    )
    card = figure_card("Words and faces", "Cosines. Rows on the right are true classes.", image, wide=True)
    return section("In the space of the words", explanation, element("div", card))


def words_chart(words: np.ndarray, faces: np.ndarray, classes: Sequence[str]) -> Figure:
    """Two heat maps [C, C] of cosines on one scale; NaN for a class without examples."""
    count = len(classes)
    figure = new_figure(46 * 2 * count + 210, 40 * count + 110)
    left, right = figure.subplots(1, 2)
    lowest = float(min(words.min(), np.nanmin(faces), 0.0))
    norm = Normalize(lowest, 1.0)
    _cosines(left, words, norm, classes, "word", "word")
    _cosines(right, faces, norm, classes, "word", "faces of")
    right.set_title("faces", fontsize=9, color=INK, loc="left")
    left.set_title("words", fontsize=9, color=INK, loc="left")
    return figure


def _cosines(axes: Axes, values: np.ndarray, norm: Normalize, classes: Sequence[str], x: str, y: str) -> None:
    axes.imshow(np.ma.masked_invalid(values), cmap=_COSINE, norm=norm, aspect="auto", interpolation="nearest")
    axes.set_facecolor("#f1f2f5")
    for row, column in np.argwhere(np.isfinite(values)).tolist():
        value = values[row, column]
        color = "white" if norm(value) > 0.58 else INK
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(len(classes)), [wrapped(name, 24) for name in classes], rotation=40, ha="right",
                    rotation_mode="anchor")  # fmt: skip
    axes.set_yticks(range(len(classes)), [wrapped(name) for name in classes])
    axes.set_xticks(np.arange(-0.5, len(classes)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(classes)), minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0, labelsize=8.4, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(x, fontsize=8.6, color=SOFT)
    axes.set_ylabel(y, fontsize=8.6, color=SOFT)
