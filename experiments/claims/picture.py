"""The picture of a trial: each difference with its interval and margin, seed by seed, and its verdict."""

from __future__ import annotations

import pathlib
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from fer_jax.report.style import BLUE, FAINT, INK, LINE, ORANGE, SOFT, new_figure, quiet, to_png
from fer_jax.storage import write_whole

if TYPE_CHECKING:
    from experiments.claims.trial import Row

COLORS = {"supported": BLUE, "opposite": ORANGE}


def write(rows: Sequence[Row], path: pathlib.Path) -> None:
    """Writes the picture of comparisons that have been measured."""
    write_whole(path, to_png(draw(rows)))


def draw(rows: Sequence[Row]) -> Figure:
    """Returns a strip for each comparison: the difference, its interval, every seed, and the margin as a band."""
    figure = new_figure(860, 130 * len(rows))
    for axes, row in zip(figure.subplots(len(rows), 1, squeeze=False).ravel(), rows, strict=True):
        asked, found = row.comparison, row.found
        assert found is not None
        scale, color = asked.scale, COLORS.get(row.verdict, SOFT)
        margin, interval = scale * asked.margin, scale * np.array(found.interval)
        quiet(axes, f"{asked.ours} - {asked.theirs}, {asked.unit} ({asked.better} is claimed)")
        axes.grid(visible=False)
        axes.axvspan(-margin, margin, color=LINE, zorder=0)
        axes.axvline(0, color=FAINT, linewidth=0.9, zorder=1)
        axes.annotate(
            f"margin {margin:g}", (margin, 1.05), xycoords=("data", "axes fraction"), fontsize=7.4, color=SOFT
        )
        axes.plot(interval, [0, 0], color=color, linewidth=3, solid_capstyle="butt", zorder=2)
        axes.plot(scale * found.mean, 0, "D", color=color, markersize=7, zorder=3)
        axes.plot(scale * np.array(found.by_seed), np.full(len(found.by_seed), -0.5), "o", color=FAINT, markersize=4)
        axes.set_ylim(-1, 1)
        axes.set_yticks([])
        axes.margins(x=0.1)
        axes.set_title(textwrap.fill(asked.says, 110), fontsize=9, color=INK, loc="left", pad=12)
        axes.annotate(
            f"{scale * found.mean:+.3g} ({interval[0]:+.3g} to {interval[1]:+.3g}), p = {row.p:.3f}: {row.verdict}",
            (1, 0.86), xycoords="axes fraction", ha="right", va="top", fontsize=8.4, color=color,
        )  # fmt: skip
    return figure
