"""Charts of what was logged while training, each a function from numbers to a matplotlib `Figure`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from fer_jax.report.style import BLUE, DASHED, FAINT, INK, SOFT, legend_above, new_figure, quiet

Curve = tuple[np.ndarray, np.ndarray]  # positions, values

_SERIES = (BLUE, "#e08a1e", "#2b7b5e", "#a55b97", "#1eb8f1", "#ce3c2b", "#8b95a3")


def loss_curves(losses: Mapping[str, Curve], axis: str, mark: float | None) -> Figure:
    """Each term over time on a log scale, faint as logged and strong as a moving average.

    Args:
      losses: name -> (position, value); values that are not positive leave a gap.
      axis: what the positions count.
      mark: the position of the selected step.
    """
    figure = new_figure(440, 300)
    axes = quiet(figure.add_subplot(), axis)
    colors = iter(_SERIES * (1 + len(losses) // len(_SERIES)))
    for name, (at, value) in losses.items():
        color = INK if name == "total" else next(colors)
        value = np.where(value > 0, value, np.nan)
        axes.plot(at, value, color=color, alpha=0.22, linewidth=0.7)
        axes.plot(at, _smooth(value), _mark(value), color=color, linewidth=1.6, label=name)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)
    if mark is not None:
        axes.axvline(mark, color=FAINT, linewidth=0.8, linestyle=DASHED)
    legend_above(figure, axes)
    return figure


def accuracy_curves(curves: Mapping[str, Curve], axis: str, selected: tuple[float, float | None, str] | None) -> Figure:
    """Accuracy over time: `train` as a moving average, the other curves with a dot per evaluation.

    Args:
      curves: name -> (position, value in [0, 1]).
      axis: what the positions count.
      selected: position and value of the selected step (value None: unknown) and what to write there.
    """
    figure = new_figure(440, 300)
    axes = quiet(figure.add_subplot(), axis)
    colors = iter(_SERIES * (1 + len(curves) // len(_SERIES)))
    for name, (at, value) in curves.items():
        if name == "train":
            axes.plot(at, value, color=FAINT, alpha=0.25, linewidth=0.7)
            axes.plot(at, _smooth(value), _mark(value), color=FAINT, linewidth=1.6, label=name)
        else:
            axes.plot(at, value, color=next(colors), linewidth=1.6, marker="o", markersize=2.6, label=name)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol="\xa0%"))
    if selected is not None:
        position, value, words = selected
        axes.axvline(position, color=FAINT, linewidth=0.8, linestyle=DASHED)
        if value is not None:
            axes.plot(position, value, "o", markersize=8, markerfacecolor="none", markeredgecolor=INK)
        left, right = axes.get_xlim()
        late = position > (left + right) / 2
        axes.annotate(
            words, (position, 0.03), xycoords=("data", "axes fraction"), xytext=(-6 if late else 6, 0),
            textcoords="offset points", ha="right" if late else "left", va="bottom", fontsize=8.2, color=SOFT,
        )  # fmt: skip
    legend_above(figure, axes)
    return figure


def signal_curve(curve: Curve, axis: str) -> Figure:
    """A small chart of one logged quantity."""
    figure = new_figure(250, 150)
    axes = quiet(figure.add_subplot(), axis)
    axes.plot(*curve, color=BLUE, linewidth=0.7, alpha=0.3)
    axes.plot(curve[0], _smooth(curve[1]), _mark(curve[1]), color=BLUE, linewidth=1.4)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    return figure


def _mark(value: np.ndarray) -> str:
    """A line, or a dot where a run was too short for one."""
    return "-" if len(value) > 1 else "o"


def _smooth(value: np.ndarray) -> np.ndarray:
    """A centred moving average over about a fortieth of the curve, shorter at its ends; gaps stay gaps."""
    width = max(1, len(value) // 40) | 1
    known = np.isfinite(value)
    window = np.ones(width)
    total = np.convolve(np.where(known, value, 0.0), window)[width // 2 :][: len(value)]
    count = np.convolve(known, window)[width // 2 :][: len(value)]
    return np.where(known, total / np.maximum(count, 1), np.nan)
