"""Charts of the scores, each a function from numbers to a matplotlib `Figure`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from fer_jax.report.style import (
    BLUE,
    DASHED,
    FAINT,
    INK,
    LINE,
    ORANGE,
    SOFT,
    class_color,
    legend_above,
    new_figure,
    paler,
    quiet,
    wrapped,
)

_RIGHT = LinearSegmentedColormap.from_list("right", ("#ffffff", "#cfdef3", "#7ea4db", BLUE, "#173a73"))
_WRONG = LinearSegmentedColormap.from_list("wrong", ("#ffffff", "#fbe3cd", "#f0ac6b", ORANGE, "#7d3606"))
_AROUND = LinearSegmentedColormap.from_list("around", ("#a34a0b", "#f0ac6b", "#ffffff", "#7ea4db", "#173a73"))
_CREAM = "#fbeadb"
_SPREAD = LinearSegmentedColormap.from_list("spread", ("#ffffff", "#dfe3e9", "#a9b2bf"))


def confusion_chart(confusion: np.ndarray, classes: Sequence[str]) -> Figure:
    """Counts per (truth, prediction); the deeper the colour, the larger the share of the row."""
    count = len(classes)
    side = max(440, 36 * count + 150)
    figure = new_figure(side, side * 0.94)
    axes = figure.add_subplot()
    total = confusion.sum(axis=1, keepdims=True)
    share = confusion / np.maximum(total, 1)
    depth = share**0.7  # lifts the rare mistakes off the white
    diagonal = np.eye(count, dtype=bool)
    axes.imshow(np.where(diagonal[..., None], _RIGHT(depth), _WRONG(depth)), aspect="auto")
    for row, column in np.argwhere(confusion).tolist():
        color = "white" if depth[row, column] > 0.58 else INK
        roomy = count <= 10
        lift = 0.13 if roomy else 0.0
        axes.text(column, row - lift, f"{confusion[row, column]:,}", ha="center", va="center",
                  fontsize=8.6 if roomy else 6.4, color=color)  # fmt: skip
        if roomy:
            axes.text(column, row + 0.2, f"{100 * share[row, column]:.0f}\xa0%", ha="center", va="center",
                      fontsize=6.2, color=color, alpha=0.8)  # fmt: skip
    for row in np.flatnonzero(total[:, 0] == 0).tolist():
        axes.text((count - 1) / 2, row, "no examples", ha="center", va="center", fontsize=8, color=FAINT)
    axes.set_xticks(
        range(count), [wrapped(name, 24) for name in classes], rotation=40, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks(range(count), [wrapped(name) for name in classes])
    axes.set_xticks(np.arange(-0.5, count), minor=True)
    axes.set_yticks(np.arange(-0.5, count), minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0, labelsize=8.4, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted", fontsize=8.6, color=SOFT)
    axes.set_ylabel("true", fontsize=8.6, color=SOFT)
    return figure


def gallery_chart(gallery: Sequence[np.ndarray], classes: Sequence[str]) -> Figure:
    """Pictures uint8 [n, H, W, 1 or 3] of each class, a class to a row."""
    columns = max(len(pictures) for pictures in gallery)
    height, width = next(pictures.shape[1:3] for pictures in gallery if len(pictures))
    sheet = np.full((len(gallery), height, columns, width, 3), 255, np.uint8)
    for row, pictures in enumerate(gallery):
        for column, picture in enumerate(pictures):
            sheet[row, :, column] = picture  # one channel spreads over three
    side = 84
    figure = new_figure(side * columns + 96, side * len(gallery) * height / width + 8)
    axes = figure.add_subplot()
    axes.imshow(sheet.reshape(len(gallery) * height, columns * width, 3), interpolation="nearest")
    axes.set_yticks((np.arange(len(gallery)) + 0.5) * height - 0.5, [wrapped(name) for name in classes])
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=8.4, labelcolor=INK)
    axes.spines[:].set_visible(False)
    return figure


def class_chart(
    classes: Sequence[str],
    recall: Sequence[float | None],
    precision: Sequence[float | None],
    f1: Sequence[float | None],
    support: Sequence[int],
) -> Figure:
    """A bar of F1 per class with its recall and precision marked, and the number of its examples."""
    few = len(classes) <= 10
    figure = new_figure(440 if few else 640, max(414 if len(classes) > 5 else 0, 38 * len(classes) + 76))
    axes = quiet(figure.add_subplot(), "")
    for row in range(len(classes)):
        color = class_color(row)
        found, named = _or_nan(recall[row]), _or_nan(precision[row])
        axes.barh(row, _or_nan(f1[row]), height=0.62, color=paler(color, 0.6), linewidth=0)
        axes.plot([found, named], [row, row], color=color, linewidth=1.2, zorder=2)
        axes.plot(found, row, "o", markersize=7, color=color, markeredgecolor="white", zorder=4,
                  clip_on=False)  # fmt: skip
        axes.plot(named, row, "D", markersize=5, markerfacecolor="white", markeredgecolor=color,
                      markeredgewidth=1.5, zorder=3, clip_on=False)  # fmt: skip
        if not support[row]:
            axes.text(0.01, row, "no examples", va="center", fontsize=8, color=FAINT)
        axes.text(1.05, row, f"{support[row]:,}", va="center", fontsize=8.4, color=SOFT, clip_on=False)
    axes.text(1.05, 1.02, "examples", fontsize=7.6, color=FAINT, transform=axes.transAxes)
    axes.set_yticks(range(len(classes)), [wrapped(name) for name in classes])
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol="\xa0%"))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    handles = [
        Patch(color=paler(FAINT, 0.5), linewidth=0, label="F1"),
        Line2D([], [], marker="o", color=SOFT, linestyle="", markersize=7, markeredgecolor="white",
               label="recall"),
        Line2D([], [], marker="D", color=SOFT, linestyle="", markersize=5, markerfacecolor="white",
               markeredgewidth=1.5, label="precision"),
    ]  # fmt: skip
    legend_above(figure, axes, handles)
    return figure


def reliability_chart(bins: Mapping[str, Any], accuracy: float, mean_confidence: float) -> Figure:
    """Accuracy per bin of confidence with the gap to honesty, above how many predictions fall where."""
    edges, count = np.asarray(bins["edges"]), np.asarray(bins["count"])
    filled = count > 0
    actual = np.array([_or_nan(value) for value in bins["accuracy"]])
    stated = np.array([_or_nan(value) for value in bins["confidence"]])
    middle, width = (edges[:-1] + edges[1:]) / 2, np.diff(edges) * 0.9
    figure = new_figure(440, 420)
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3.2, 1)})
    quiet(above, "")
    quiet(below, "confidence in the predicted class")
    for place in np.flatnonzero(filled):
        strength = 1.0 if count[place] >= 10 else 0.35  # a handful of examples proves little
        above.bar(middle[place], actual[place], width[place], color="#7ea4db", alpha=strength, linewidth=0)
        gap = stated[place] - actual[place]
        above.bar(middle[place], gap, width[place], bottom=actual[place], hatch="////", linewidth=0.8,
                  facecolor=_CREAM if gap > 0 else "#a9c3e8", edgecolor=ORANGE, alpha=strength)  # fmt: skip
    above.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=DASHED)
    above.set_ylim(0, 1)
    above.set_xlim(0, 1)
    above.set_ylabel("accuracy", fontsize=8.6, color=SOFT)
    below.bar(middle[filled], count[filled], width[filled], color="#b3bac5", linewidth=0)
    below.set_ylabel("count", fontsize=8.6, color=SOFT)
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    below.axvline(accuracy, color=BLUE, linewidth=1.6)
    below.axvline(mean_confidence, color=ORANGE, linewidth=1.6, linestyle=(0, (3, 1.5)))
    below.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol="\xa0%"))
    above.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol="\xa0%"))
    handles = [
        Patch(color="#7ea4db", linewidth=0, label="accuracy"),
        Patch(facecolor=_CREAM, edgecolor=ORANGE, hatch="////", label="gap to confidence"),
        Line2D([], [], color=SOFT, linewidth=1, linestyle=DASHED, label="perfectly honest"),
    ]
    legend_above(figure, above, handles)
    handles = [
        Line2D([], [], color=BLUE, linewidth=1.6, label="accuracy of all"),
        Line2D([], [], color=ORANGE, linewidth=1.6, linestyle=(0, (3, 1.5)), label="mean confidence"),
    ]
    below.legend(handles=handles, loc="upper left", frameon=False, fontsize=7.6, labelcolor=SOFT, borderaxespad=0.2)
    return figure


def profile_charts(mean: np.ndarray, spread: np.ndarray, classes: Sequence[str]) -> tuple[Figure, Figure]:
    """How the mean of each feature differs between the classes, and its spread inside each class.

    Args:
      mean: [C, M], NaN for a class without examples; written into the cells when there is room.
      spread: [C, M] standard deviations.
    """
    known = np.isfinite(mean).all(axis=1)
    centred = mean - mean[known].mean(axis=0)
    limit = max(float(np.abs(centred[known]).max()), 1e-12)
    most = max(float(spread[known].max()), 1e-12)
    return (
        _heat_map(centred, mean, Normalize(-limit, limit), _AROUND, classes),
        _heat_map(spread, spread, Normalize(0.0, most), _SPREAD, classes),
    )


def _heat_map(
    shade: np.ndarray,
    cells: np.ndarray,
    norm: Normalize,
    colormap: LinearSegmentedColormap,
    classes: Sequence[str],
) -> Figure:
    """Colours [C, M] by `shade` and, where there is room, writes `cells`."""
    rows, columns = shade.shape
    figure = new_figure(480, 31 * rows + 50)
    axes = figure.add_subplot()
    axes.imshow(np.ma.masked_invalid(shade), cmap=colormap, norm=norm, aspect="auto", interpolation="nearest")
    axes.set_facecolor("#f1f2f5")
    axes.tick_params(length=0, labelsize=8.2, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("feature", fontsize=8.6, color=SOFT)
    axes.set_yticks(range(rows), [wrapped(name, 24) for name in classes])
    if columns > 10:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value + 1:.0f}"))
        return figure
    axes.set_xticks(range(columns), [str(column + 1) for column in range(columns)])
    digits = min(max(1 - math.floor(math.log10(norm.vmax or 1.0)), 0), 4)  # what tells the cells apart
    for row, column in np.argwhere(np.isfinite(cells)).tolist():
        light = np.dot(colormap(norm(shade[row, column]))[:3], (0.299, 0.587, 0.114)) > 0.55
        axes.text(column, row, f"{cells[row, column]:.{digits}f}", ha="center", va="center", fontsize=7,
                  color=INK if light else "white")  # fmt: skip
    return figure


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
