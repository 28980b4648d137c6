"""The reliability diagram of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fer_jax.report.style import BLUE, DASHED, ORANGE, SOFT, in_percent, legend_above, new_figure, quiet

_PALE_BLUE, _PALE_ORANGE = "#7ea4db", "#fbeadb"


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
        Patch(facecolor=_PALE_ORANGE, edgecolor=ORANGE, hatch="////", label="gap"),
        *diagonal,
    ]
    legend_above(figure, above, handles)
    below.legend(loc="upper left", frameon=False, fontsize=7.6, labelcolor=SOFT, borderaxespad=0.2)
    return figure
