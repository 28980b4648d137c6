"""Gates on the face: how open a method is at each of its points, on the image and behind an object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fer_jax.report.folder import ReportFolder
from fer_jax.report.inspection import Inspection
from fer_jax.report.markup import Html, figure_card, section
from fer_jax.report.style import BLUE, DIVERGING, INK, ORANGE, SOFT, bare, new_figure

NARROWEST = 0.15  # the colors reach at least this far from a half
SMALLEST, LARGEST = 2.5, 10.5  # diameter of a closed and of an open gate, in points
FACE = 172  # CSS pixels
COLUMNS = 6  # faces side by side


def point_gates(folder: ReportFolder, inspection: Inspection) -> Html:
    """The section of a method that shows `points` [n, P, 2] and gates `alpha` [n, P or P + 1] in (0, 1).

    It is empty if every gate is 1, which is how a method without gates answers.
    """
    if (inspection.values["alpha"] == 1).all():
        return Html()
    views = [inspection] if inspection.occluded is None else [inspection, inspection.occluded]
    means = " and ".join(f"{view.values['alpha'].mean():.2f}" for view in views)
    image = folder.chart("gates", gates_chart(views), f"Gates of {len(inspection.labels)} faces, mean {means}")
    text = "A circle is large and blue where the gate is open, small and orange where it is closed."
    if len(views) > 1:
        text += " Left the image, right the same behind an object of a kind that training never saw."
    if inspection.values["alpha"].shape[1] > inspection.values["points"].shape[1]:
        text += " The number after the prediction is the gate of the whole face."
    card = figure_card("How much each patch counts", text, image, wide=True)
    explanation = "The gates are learned from the expression alone: no label says what is covered."
    return section("Where it looks", explanation, card)


def gates_chart(views: Sequence[Inspection]) -> Figure:
    """Faces with their gates in order of classes, each example once per view."""
    order = np.argsort(views[0].labels, kind="stable")
    reach = max(NARROWEST, *(float(np.abs(view.values["alpha"] - 0.5).max()) for view in views))
    scale = Normalize(0.5 - reach, 0.5 + reach)
    rows = -(-len(order) * len(views) // COLUMNS)
    figure = new_figure(COLUMNS * (FACE + 9), rows * (FACE + 40) + 30)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    faces = [(view, example) for example in order.tolist() for view in views]
    for panel, (view, example) in zip(panels, faces, strict=False):
        _face(panel, view, example, scale)
    values = np.linspace(0.5 - reach, 0.5 + reach, 5)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=DIVERGING(scale(value)), markeredgecolor=INK,
               markersize=_size(scale(value)), label=f"{value:.2f}")
        for value in values
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper left", ncols=5, frameon=False, fontsize=8, labelcolor=SOFT)
    return figure


def _face(axes: Axes, view: Inspection, example: int, scale: Normalize) -> None:
    """One face with a circle per gate, the true class above and the predicted one below."""
    image, alpha, points = view.fields["image"][example], view.values["alpha"][example], view.fields["points"][example]
    bare(axes).set_axis_on()
    pale = 0.45 * image + 0.2 * image.mean(axis=-1, keepdims=True) + 0.35 * 255  # so that the circles stand out
    axes.imshow(np.broadcast_to(pale, (*image.shape[:2], 3)).astype(np.uint8), interpolation="bilinear")
    open_, width = scale(alpha[: len(points)]), {"linewidths": 0.55, "edgecolors": INK}
    axes.scatter(*points.T, s=_size(open_) ** 2, c=DIVERGING(open_), **width)
    axes.set(xticks=[], yticks=[], xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    predicted, true = int(view.logits[example].argmax()), int(view.labels[example])
    whole = f" · {alpha[-1]:.2f}" if len(alpha) > len(points) else ""
    axes.set_title(view.classes[true], fontsize=8.6, color=INK, loc="left", pad=3)
    color = BLUE if predicted == true else ORANGE
    axes.set_xlabel(f"predicted {view.classes[predicted]}{whole}", fontsize=7.6, color=color, labelpad=3)


def _size(open_: np.ndarray | float) -> np.ndarray | float:
    """Diameter in points of gates that are open by a share."""
    return SMALLEST + (LARGEST - SMALLEST) * open_
