"""Matrices as tables of colored cells: the confusion matrix, profiles of classes, cosines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_hex

from fer_jax.report.markup import Html, element, join, percent
from fer_jax.report.style import BLUE, ORANGE

BLUES = LinearSegmentedColormap.from_list("blues", ("#ffffff", "#cfdef3", "#7ea4db", BLUE, "#173a73"))
ORANGES = LinearSegmentedColormap.from_list("oranges", ("#ffffff", "#fbe3cd", "#f0ac6b", ORANGE, "#7d3606"))
GRAYS = LinearSegmentedColormap.from_list("grays", ("#ffffff", "#dfe3e9", "#a9b2bf"))
DIVERGING = LinearSegmentedColormap.from_list("diverging", ("#7d3606", ORANGE, "#ffffff", BLUE, "#173a73"))


def confusion_table(
    counts: np.ndarray, right: np.ndarray, support: np.ndarray, rows: Sequence[str], columns: Sequence[str]
) -> Html:
    """Counts [R, C] per (truth, prediction), blue where they are `right`, else orange.

    The deeper the color, the larger the share of `support` [R], the examples of a row.
    """
    share = counts / np.maximum(support[:, None], 1)
    depth = share**0.7  # so that rare mistakes stand out from the white
    colors = np.where(right[..., None], BLUES(depth), ORANGES(depth))
    cells = np.full(counts.shape, "0", object)
    for cell in zip(*np.nonzero(counts), strict=True):
        cells[cell] = join([f"{counts[cell]:,}", element("small", percent(float(share[cell]), 0))])
    return _table(colors, cells, rows, columns)


def value_table(values: np.ndarray, colors: np.ndarray, rows: Sequence[str], columns: Sequence[str] = ()) -> Html:
    """Numbers [R, C] on colors [R, C, 4] (RGBA); NaN is left empty.

    Up to 10 columns the numbers are written. Without names the columns are numbered.
    """
    count = values.shape[1]
    span = max(float(np.nanmax(values) - np.nanmin(values)), 1e-12)
    digits = min(max(1 - math.floor(math.log10(span)), 2), 4)  # enough to tell the cells apart
    cells = np.full(values.shape, "", object)
    for cell in zip(*np.nonzero(np.isfinite(values)), strict=True) if count <= 10 else ():
        cells[cell] = f"{values[cell]:.{digits}f}"
    every = -(-count // 10)
    columns = columns or [str(number + 1) if number % every == 0 else "" for number in range(count)]
    return _table(np.where(np.isfinite(values)[..., None], colors, 1.0), cells, rows, columns)


def _table(colors: np.ndarray, cells: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Html:
    """Cells [R, C] on backgrounds [R, C, 4] (RGBA) beside and under the names of rows and columns."""
    head = (element("th", element("span", name), scope="col") for name in columns)
    lines = [element("tr", element("td"), *head)]
    for name, backgrounds, texts in zip(rows, colors, cells, strict=True):
        line = [element("th", name, scope="row")]
        for color, text in zip(backgrounds, texts, strict=True):
            dark = color[:3] @ (0.299, 0.587, 0.114) < 0.55
            line.append(element("td", text, style=f"background:{to_hex(color)}", class_="dark" if dark else None))
        lines.append(element("tr", *line))
    return element("table", *lines, class_="heat" if all(columns) else "heat dense")
