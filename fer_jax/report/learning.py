"""The section on training: the curves of metrics.jsonl, with the selected step marked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from fer_jax.report.images import chart
from fer_jax.report.markup import Html, element, figure_card, percent, plain, section
from fer_jax.report.style import BLUE, DASHED, FAINT, INK, in_percent, legend_above, new_figure, quiet

Lines = Sequence[Mapping[str, Any]]
Curve = tuple[np.ndarray, np.ndarray]  # positions, values

COLORS = (BLUE, "#e08a1e", "#2b7b5e", "#a55b97", "#1eb8f1", "#ce3c2b", "#8b95a3")
FIXED = {"total": INK, "train": FAINT}  # colors of these curves; the others take turns


def learning(results: Mapping[str, Any], history: Lines) -> Html:
    """Loss terms, accuracies, and whatever else was logged."""
    if not history:
        return section("Learning", "No training log was given: this report scores stored weights.")
    logged, measured = curves_of(history, "train"), curves_of(history, "validation")
    selection = results.get("selection", {})
    held_out = "test" if selection.get("rule") == "best_on_test" else "validation"
    titles = {"accuracy": held_out, "mean_recall": f"{held_out}, mean recall"}
    accuracies = {"train": logged.pop("accuracy")} if "accuracy" in logged else {}
    accuracies |= {titles[name]: measured[name] for name in titles if name in measured}
    losses = {name.removeprefix("loss/"): curve for name, curve in logged.items() if _is_loss(name, curve)}
    if "nll" in measured:  # what cross-entropy is on the held-out examples
        losses[f"{held_out} (cross-entropy)"] = measured["nll"]
    others = {name: curve for name, curve in logged.items() if not _is_loss(name, curve)}
    others |= {f"validation/{name}": measured[name] for name in results.get("measures", ()) if name in measured}
    step = selection.get("best_step")
    selected = next((line for line in history if line["kind"] == "validation" and line["step"] == step), {})
    cards = []
    if losses:
        image = chart(loss_chart(losses, selected), _ends("Loss terms", losses, plain))
        cards.append(
            figure_card(
                "Loss",
                "Each term, their weighted sum in black, and the cross-entropy of the evaluations, on a log scale.",
                image,
            )
        )
    if accuracies:
        figure = accuracy_chart(accuracies, selected)
        image = chart(figure, _ends("Accuracy", accuracies, percent))
        ring = f"The ring marks step {plain(step)}, whose weights are scored"
        known = "accuracy" in selected
        explanation = f"{ring}: {percent(selected['accuracy'])}." if known else "At every evaluation."
        cards.append(figure_card("Accuracy", explanation, image))
    if others:
        small = []
        for name, curve in others.items():
            image = chart(small_chart(curve), _ends("Logged", {name: curve}, plain))
            small.append(element("figure", element("figcaption", name.replace("/", "/\N{ZERO WIDTH SPACE}")), image))
        title = element("h3", "Also logged")
        cards.append(element("div", title, element("div", *small, class_="small"), class_="card wide"))
    return section("Learning", _which_weights(selection), element("div", *cards, class_="pair"))


def loss_chart(losses: Mapping[str, Curve], selected: Mapping[str, Any]) -> Figure:
    """Loss terms over time on a log scale; values that are not positive leave a gap."""
    positive = {name: (at, np.where(value > 0, value, np.nan)) for name, (at, value) in losses.items()}
    figure, axes = _curve_chart(positive, selected)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=0)
    return figure


def accuracy_chart(accuracies: Mapping[str, Curve], selected: Mapping[str, Any]) -> Figure:
    """Accuracies in [0, 1] over time, with a ring at the selected evaluation."""
    figure, axes = _curve_chart(accuracies, selected)
    in_percent(axes.yaxis)
    if "accuracy" in selected:
        ring = {"markersize": 8, "markerfacecolor": "none", "markeredgecolor": INK}
        axes.plot(selected["epoch"], selected["accuracy"], "o", **ring)
    return figure


def small_chart(curve: Curve) -> Figure:
    """A small chart of one logged quantity."""
    figure = new_figure(250, 150)
    axes = quiet(figure.add_subplot(), "epoch")
    _draw(axes, curve, BLUE, "")
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    return figure


def _curve_chart(curves: Mapping[str, Curve], selected: Mapping[str, Any]) -> tuple[Figure, Axes]:
    """Curves over epochs under a legend, with a line at the selected step where that is known."""
    figure = new_figure(440, 300)
    axes = quiet(figure.add_subplot(), "epoch")
    colors = itertools.cycle(COLORS)
    for name, curve in curves.items():
        _draw(axes, curve, FIXED.get(name) or next(colors), name)
    if "epoch" in selected:
        axes.axvline(selected["epoch"], color=FAINT, linewidth=0.8, linestyle=DASHED)
    legend_above(figure, axes)
    return figure, axes


def _draw(axes: Axes, curve: Curve, color: str, label: str) -> None:
    """A curve: faint as logged, strong as a centered moving average over a fortieth of it; gaps stay gaps."""
    at, value = curve
    width = max(1, len(value) // 40) | 1
    known = np.isfinite(value)
    window = slice(width // 2, width // 2 + len(value))
    total = np.convolve(np.where(known, value, 0.0), np.ones(width))[window]
    count = np.convolve(known, np.ones(width))[window]
    axes.plot(at, value, color=color, alpha=0.25, linewidth=0.7)
    smooth = np.where(known, total / np.maximum(count, 1), np.nan)
    axes.plot(at, smooth, color=color, linewidth=1.6, marker="o" if len(at) < 60 else "", markersize=2.6, label=label)


def _is_loss(name: str, curve: Curve) -> bool:
    """Whether a curve is a loss term that fits on a log scale."""
    return name.startswith("loss/") and bool((curve[1] > 0).any() and not (curve[1] < 0).any())


def _ends(title: str, curves: Mapping[str, Curve], write: Callable[[float], str]) -> str:
    """Where curves begin and end, for readers who cannot see them."""
    ends = (f"{name} from {write(float(value[0]))} to {write(float(value[-1]))}" for name, (_, value) in curves.items())
    return f"{title} over training: {', '.join(ends)}"


def _which_weights(selection: Mapping[str, Any]) -> str:
    """Which step is scored, why that one, and what the last one scores."""
    if selection.get("best_step") is None:
        return "From the first step to the last."
    reason = {
        "best_validation": f"chosen for the best {selection.get('metric')} on {selection.get('on')}",
        "best_on_test": f"chosen for the best {selection.get('metric')} on the test split",
        "last": "the last",
    }[selection["rule"]]
    text = f"The scored weights are those of step {plain(selection['best_step'])}, {reason}."
    accuracy = selection.get("last", {}).get("test", {}).get("accuracy")
    if selection["rule"] != "last" and accuracy is not None:
        text += f" Those of the last step reach {percent(accuracy)} here."
    return text


def curves_of(history: Lines, kind: str) -> dict[str, Curve]:
    """Returns epochs and values, by name, of the finite numbers in lines of metrics.jsonl, 'train' or 'validation'."""
    points: dict[str, list[tuple[float, float]]] = {}
    for line in history:
        for name, value in line.items() if line["kind"] == kind else ():
            if name not in ("step", "epoch") and isinstance(value, int | float) and math.isfinite(value):
                points.setdefault(name, []).append((line["epoch"], value))
    return {name: (np.array(pairs)[:, 0], np.array(pairs)[:, 1]) for name, pairs in points.items()}
