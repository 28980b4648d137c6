"""Gates on the face: how open a method is at each of its points, clean and behind an object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Circle

from fer_jax.report.markup import Html, element, figure_card, section
from fer_jax.report.pictures import Book
from fer_jax.report.shown import Shown
from fer_jax.report.style import BLUE, INK, ORANGE, SOFT, new_figure

_GATE = LinearSegmentedColormap.from_list("gate", ("#7d3606", ORANGE, "#ffffff", BLUE, "#173a73"))
NARROWEST = 0.15  # the colours reach at least so far from a half
SMALLEST, LARGEST = 0.010, 0.042  # radius of a closed and of an open gate, as a share of the image's side
FACE = 172  # CSS pixels
PER_ROW = 3  # examples side by side


def draw_gates(book: Book, shown: Shown) -> Html:
    """The section of a method that shows `points` [n, P, 2] and gates `alpha` [n, P or P + 1] in (0, 1).

    Without gates, where every alpha is 1, there is nothing to show.
    """
    if (shown.values["alpha"] == 1).all():
        return Html()
    seen = [shown] if shown.occluded is None else [shown, shown.occluded]
    image = book.chart("gates", gates_chart(seen), _in_words(seen))
    both = "Left as it is, right behind an object of a kind that training never saw. " if len(seen) > 1 else ""
    whole = "The number after the answer is the gate of the whole face. " if _has_global(shown) else ""
    text = f"{both}A circle is large and blue where the gate is open, small and orange where it is closed. {whole}"
    card = figure_card("How much each patch may say", text.strip(), image, wide=True)
    explanation = "The gates see no label of what is covered; they learn from the expression alone."
    return section("Where it looks", explanation, element("div", card, class_="pair"))


def gates_chart(seen: Sequence[Shown]) -> Figure:
    """Faces with their gates: the examples in rows, each once per element of `seen`."""
    count, views = len(seen[0].labels), len(seen)
    alphas = np.concatenate([one.values["alpha"].ravel() for one in seen])
    reach = max(NARROWEST, float(np.abs(alphas - 0.5).max()))
    scale = Normalize(0.5 - reach, 0.5 + reach)
    per_row = PER_ROW * 2 // views
    rows = -(-count // per_row)
    figure = new_figure(per_row * (views * FACE + 18), rows * (FACE + 40) + 44)
    parts: Any = figure.subfigures(2, 1, height_ratios=(44, rows * (FACE + 40)))
    legend, body = parts
    _legend(legend, scale, reach)
    cells: Any = body.subfigures(rows, per_row, squeeze=False)
    by_class = np.argsort(seen[0].labels, kind="stable")
    for number, cell in zip(by_class.tolist(), cells.ravel()[:count], strict=True):
        axes = cell.subplots(1, views, squeeze=False)[0]
        for view, (one, panel) in enumerate(zip(seen, axes, strict=True)):
            _face(panel, one, number, scale, labelled=view == 0)
    return figure


def _face(axes: Axes, shown: Shown, number: int, scale: Normalize, labelled: bool) -> None:
    image, alpha = shown.fields["image"][number], shown.values["alpha"][number]
    points = shown.fields["points"][number]
    height, width = image.shape[:2]
    grey = image.mean(axis=-1, keepdims=True)
    pale = 0.55 * image + 0.45 * (0.55 * grey + 0.45 * 255)  # so that the circles stand out
    axes.imshow(np.broadcast_to(pale, (height, width, 3)).astype(np.uint8), interpolation="bilinear")
    size = max(height, width)
    circles = [
        Circle((float(x), float(y)), size * (SMALLEST + (LARGEST - SMALLEST) * float(scale(a))))
        for (x, y), a in zip(points, alpha, strict=False)
    ]
    colors = _GATE(scale(alpha[: len(points)]))
    axes.add_collection(
        PatchCollection(circles, facecolors=colors, edgecolors=INK, linewidths=0.55, alpha=0.95, match_original=False)
    )
    axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    answer = int(shown.logits[number].argmax())
    right = answer == shown.labels[number]
    whole = f" · {alpha[-1]:.2f}" if len(alpha) > len(points) else ""
    axes.set_xlabel(f"says {shown.classes[answer]}{whole}", fontsize=7.6, color=BLUE if right else ORANGE, labelpad=3)
    axes.set_title(
        str(shown.classes[shown.labels[number]]) if labelled else " ", fontsize=8.6, color=INK, loc="left", pad=3
    )


def _legend(figure: SubFigure, scale: Normalize, reach: float) -> None:
    """Circles of five gates in the sizes and colours of the picture."""
    axes = figure.add_subplot()
    values = np.linspace(0.5 - reach, 0.5 + reach, 5)
    for place, value in enumerate(values):
        radius = FACE * (SMALLEST + (LARGEST - SMALLEST) * float(scale(value)))
        axes.add_patch(Circle((14 + 62 * place, 22), radius, facecolor=_GATE(scale(value)), edgecolor=INK, lw=0.55))
        axes.text(26 + 62 * place, 22, f"{value:.2f}", va="center", fontsize=8, color=SOFT)
    axes.text(26 + 62 * len(values), 22, "alpha: closed to open", va="center", fontsize=8, color=SOFT)
    width = 100 * figure.figure.get_figwidth()
    axes.set(xlim=(0, width), ylim=(0, 44), aspect="equal", anchor="W")
    axes.set_axis_off()


def _has_global(shown: Shown) -> bool:
    return shown.values["alpha"].shape[1] > shown.values["points"].shape[1]


def _in_words(seen: Sequence[Shown]) -> str:
    means = [float(one.values["alpha"].mean()) for one in seen]
    said = f"Gates of {len(seen[0].labels)} test faces: on average {means[0]:.2f} open"
    if len(means) > 1 and math.isfinite(means[1]):
        said += f", {means[1]:.2f} behind an object"
    return said
