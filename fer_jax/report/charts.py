"""Charts of a classifier's scores, each a function from numbers to a matplotlib `Figure`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import Colormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fer_jax.report.style import (
    BLANK,
    BLUE,
    BLUES,
    DASHED,
    DIVERGING,
    FAINT,
    GRAYS,
    ORANGE,
    ORANGES,
    SOFT,
    heat_map,
    in_percent,
    legend_above,
    new_figure,
    quiet,
)

_PALE_BLUE, _PALE_ORANGE = "#7ea4db", "#fbeadb"


def confusion_chart(confusion: np.ndarray, classes: Sequence[str]) -> Figure:
    """Counts per (truth, prediction); the deeper the color, the larger the share of the row."""
    count = len(classes)
    roomy = count <= 10
    side = max(440, 36 * count + 150)
    figure = new_figure(side, side * 0.94)
    axes = figure.add_subplot()
    total = confusion.sum(axis=1, keepdims=True)
    share = confusion / np.maximum(total, 1)
    depth = share**0.7  # so that rare mistakes stand out from the white
    colors = np.where(np.eye(count, dtype=bool)[..., None], BLUES(depth), ORANGES(depth))
    cells = np.full(confusion.shape, "", object)
    for cell in zip(*np.nonzero(confusion), strict=True):
        cells[cell] = f"{confusion[cell]:,}" + (f"\n{100 * share[cell]:.0f}\xa0%" if roomy else "")
    heat_map(axes, colors, cells, classes, classes, 7.4 if roomy else 6.4)
    for row in np.flatnonzero(total == 0).tolist():
        axes.text((count - 1) / 2, row, "no examples", ha="center", va="center", fontsize=8, color=FAINT)
    axes.set_xlabel("predicted", fontsize=8.6, color=SOFT)
    axes.set_ylabel("true", fontsize=8.6, color=SOFT)
    return figure


def reliability_chart(bins: Mapping[str, Any], accuracy: float, mean_confidence: float) -> Figure:
    """Accuracy per bin of confidence and the gap between the two, above the number of predictions in each bin."""
    edges, count = np.asarray(bins["edges"]), np.asarray(bins["count"])
    actual, stated = np.array(bins["accuracy"], float), np.array(bins["confidence"], float)
    middle, width = (edges[:-1] + edges[1:]) / 2, 0.9 / len(count)
    figure = new_figure(440, 420)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    quiet(above, y="accuracy")
    quiet(below, "confidence in the predicted class", "count")
    for place in np.flatnonzero(count):
        strength = 1.0 if count[place] >= 10 else 0.35  # a handful of examples proves little
        above.bar(middle[place], actual[place], width, color=_PALE_BLUE, alpha=strength, linewidth=0)
        gap = stated[place] - actual[place]
        above.bar(
            middle[place], gap, width, bottom=actual[place], hatch="////", linewidth=0.8,
            facecolor=_PALE_ORANGE if gap > 0 else "#a9c3e8", edgecolor=ORANGE, alpha=strength,
        )  # fmt: skip
    diagonal = above.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=DASHED, label="ideal")
    above.set(xlim=(0, 1), ylim=(0, 1))
    below.bar(middle, count, width, color="#b3bac5", linewidth=0)
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    below.axvline(accuracy, color=BLUE, linewidth=1.6, label="accuracy over all")
    below.axvline(mean_confidence, color=ORANGE, linewidth=1.6, linestyle=(0, (3, 1.5)), label="mean confidence")
    in_percent(below.xaxis)
    in_percent(above.yaxis)
    handles = [
        Patch(color=_PALE_BLUE, linewidth=0, label="accuracy"),
        Patch(facecolor=_PALE_ORANGE, edgecolor=ORANGE, hatch="////", label="gap to confidence"),
        *diagonal,
    ]
    legend_above(figure, above, handles)
    below.legend(loc="upper left", frameon=False, fontsize=7.6, labelcolor=SOFT, borderaxespad=0.2)
    return figure


def profile_charts(mean: np.ndarray, spread: np.ndarray, classes: Sequence[str]) -> tuple[Figure, Figure]:
    """How the mean of each feature differs between the classes, and its spread inside each class.

    Args:
        mean: [C, M], NaN for a class without examples; written into the cells if there is room.
        spread: [C, M] standard deviations.
        classes: C names.
    """
    centered = mean - np.nanmean(mean, axis=0)
    limit = max(float(np.nanmax(np.abs(centered))), 1e-12)
    most = max(float(np.nanmax(spread)), 1e-12)
    return (
        _profile_map(shaded(centered, Normalize(-limit, limit), DIVERGING), mean, limit, classes),
        _profile_map(shaded(spread, Normalize(0.0, most), GRAYS), spread, most, classes),
    )


def _profile_map(colors: np.ndarray, values: np.ndarray, largest: float, classes: Sequence[str]) -> Figure:
    """Colors [C, M, 4] and, if there is room, the `values` [C, M], with digits enough to tell them apart."""
    rows, columns = values.shape
    figure = new_figure(480, 31 * rows + 50)
    axes = figure.add_subplot()
    roomy = columns <= 10
    digits = min(max(1 - math.floor(math.log10(largest)), 0), 4)
    cells = written(values, digits) if roomy else np.empty((0, 0))
    heat_map(axes, colors, cells, classes, [str(column + 1) for column in range(columns)] if roomy else (), 7)
    if not roomy:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value + 1:.0f}"))
    axes.set_xlabel("feature", fontsize=8.6, color=SOFT)
    return figure


def shaded(values: np.ndarray, norm: Normalize, colormap: Colormap) -> np.ndarray:
    """Colors [..., 4] of values, gray for NaN."""
    return np.where(np.isfinite(values)[..., None], colormap(norm(values)), to_rgba(BLANK))


def written(values: np.ndarray, digits: int) -> np.ndarray:
    """Values as texts with a fixed number of digits, empty for NaN."""
    texts = [f"{value:.{digits}f}" if np.isfinite(value) else "" for value in values.ravel()]
    return np.array(texts, object).reshape(values.shape)
