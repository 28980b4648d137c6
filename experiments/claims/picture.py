"""The picture of a trial: every comparison, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fer_jax.report.style import BLUE, FAINT, INK, ORANGE, SOFT, new_figure, quiet, wrapped

ACROSS = 4  # comparisons in a row


def paired_chart(record: Mapping[str, Any]) -> Figure:
    """For each comparison the two arms with a line for each seed, and the difference with its interval below."""
    comparisons = record["comparisons"]
    columns = min(len(comparisons), ACROSS)
    rows = -(-len(comparisons) // columns)
    figure = new_figure(max(360, 235 * columns), 330 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[len(comparisons) :]:
        unused.set_axis_off()
    for place, comparison in zip(axes[: len(comparisons)], comparisons, strict=True):
        scale, unit, name = comparison["scale"], comparison["unit"], comparison["measure"]
        ours = scale * np.array(record["arms"][comparison["ours"]][name])
        theirs = scale * np.array(
            record["arms"].get(comparison["theirs"], {}).get(name, [comparison["theirs"]] * len(ours))
        )
        quiet(place, "")
        for a, b in zip(theirs, ours, strict=True):
            place.plot([0, 1], [a, b], color=FAINT, linewidth=0.9, zorder=1)
        place.scatter(np.zeros(len(theirs)), theirs, s=26, color=ORANGE, zorder=2)
        place.scatter(np.ones(len(ours)), ours, s=26, color=BLUE, zorder=2)
        place.set_xticks([0, 1], [wrapped(_label(comparison["theirs"])), wrapped(comparison["ours"])])
        place.tick_params(axis="x", labelcolor=INK)
        place.set_xlim(-0.45, 1.45)
        low, high = (scale * bound for bound in comparison["interval"])
        place.set_title(
            f"{wrapped(name, 30)}{f', {unit.strip()}' if unit.strip() else ''}", fontsize=9, color=INK, loc="left"
        )
        place.set_xlabel(
            f"{scale * comparison['difference']:+.3g}  ({low:+.3g} to {high:+.3g})\n"
            f"{comparison['better']} is claimed: {comparison['verdict']}",
            fontsize=8.4,
            color=SOFT,
        )
    return figure


def _label(arm: str | float) -> str:
    return arm if isinstance(arm, str) else f"{arm:g}"
