"""Valence and arousal in a plane, valence to the right and arousal up (Russell's circumplex, 1980)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from fer_jax.labels import AFFECT
from fer_jax.report.images import chart
from fer_jax.report.markup import Html, element, join, section, table
from fer_jax.report.sections import Predictions
from fer_jax.report.style import INK, LINE, SOFT, class_color, legend_above, new_figure, quiet

POINTS = 2000  # drawn at most, evenly spaced over the examples


def circumplex(results: Mapping[str, Any], predictions: Predictions) -> Html:
    """The predictions in the plane and their scores; empty if the model predicts no valence and arousal."""
    if predictions.affect is None:
        return Html()
    explanation = "Each dot is a prediction, in the color of its true class. A disk is the mean prediction of a class."
    scores = Html()
    if "affect_examples" in results:
        explanation += " A line leads from it to a ring, the mean annotation of the class."
        named = ((name.capitalize(), results[f"{name}_ccc"], results[f"{name}_rmse"]) for name in AFFECT)
        rows = [(name, *("none" if v is None else f"{v:.3f}" for v in values)) for name, *values in named]
        reading = (
            f"Of {results['affect_examples']:,} annotated examples, on scales from -1 to 1. The concordance (CCC) is 1 "
            "where predictions equal annotations and 0 where they are unrelated; a shift or another spread lowers it."
        )
        scores = join((element("h3", "Scores"), table(rows, head=("", "CCC", "RMSE")), element("p", reading)))
    image = chart(circumplex_chart(results["classes"], predictions), "Predicted valence and arousal by class")
    card = element("div", image, element("div", scores, element("p", explanation)), class_="card beside")
    return section("Valence and arousal", "How pleasant a face looks (valence), and how excited (arousal).", card)


def circumplex_chart(names: list[str], predictions: Predictions) -> Figure:
    """Predictions as dots in the plane, with the means of the classes."""
    assert predictions.affect is not None
    predicted, truth, labels = predictions.affect, predictions.true_affect, predictions.labels
    figure = new_figure(460, 520)
    axes = quiet(figure.add_subplot(aspect="equal"), "valence", "arousal")
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor=SOFT, linewidth=1))
    axes.axhline(0, color=LINE, linewidth=1, zorder=0)
    axes.axvline(0, color=LINE, linewidth=1, zorder=0)
    shown = np.unique(np.linspace(0, len(labels) - 1, POINTS).round().astype(int))
    colors = np.array([class_color(c) for c in range(len(names))])
    axes.scatter(*predicted[shown].T, s=7, c=colors[labels[shown]], alpha=0.35, linewidths=0)
    for c in np.unique(labels).tolist():
        own = labels == c
        if truth is not None and (known := own & ~np.isnan(truth).any(axis=1)).any():
            own, goal = known, truth[known].mean(axis=0)
            axes.plot(*np.stack([predicted[own].mean(axis=0), goal]).T, color=INK, linewidth=1, zorder=3)
            axes.plot(*goal, "o", markersize=10, mfc="white", mec=colors[c], markeredgewidth=2.5, zorder=4)
        axes.plot(*predicted[own].mean(axis=0), "o", markersize=10, mfc=colors[c], mec=INK, zorder=5)
    marks = {"linestyle": "", "marker": "o", "markersize": 7}
    legend_above(figure, axes, [Line2D([], [], color=colors[c], label=name, **marks) for c, name in enumerate(names)])
    return figure
