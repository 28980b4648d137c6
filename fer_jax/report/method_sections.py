"""Sections on a method's intermediates. The names of the values decide which are drawn, so no method is known here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from fer_jax.report.charts import shaded, written
from fer_jax.report.folder import ReportFolder
from fer_jax.report.frames import frame_weights
from fer_jax.report.inspection import Inspection
from fer_jax.report.markup import Html, figure_card, join, section
from fer_jax.report.points import point_gates
from fer_jax.report.style import BLUES, INK, bare, heat_map, new_figure, wrapped

PICTURE_ROWS = 8


def method_sections(folder: ReportFolder, inspection: Inspection | None) -> Html:
    """Draws each section all of whose values are there."""
    if inspection is None:
        return Html()
    names = set(inspection.values)
    return join(draw(folder, inspection) for draw, needed in SECTIONS.items() if needed <= names)


def class_similarity(folder: ReportFolder, inspection: Inspection) -> Html:
    """Cosines between the class vectors beside the mean cosine of each class's images with each vector.

    Reads `word_similarity` [n, C, C], the same for every example, and `similarity` [n, C].
    """
    vectors, cosines = inspection.values["word_similarity"][0], inspection.values["similarity"]
    images = np.full(vectors.shape, np.nan)
    for c in np.unique(inspection.labels):
        images[c] = cosines[inspection.labels == c].mean(axis=0)
    own = (f"{name} {images[c, c]:.2f}" for c, name in enumerate(inspection.classes) if np.isfinite(images[c, c]))
    figure = similarity_chart(vectors, images, inspection.classes)
    image = folder.chart("similarity", figure, f"Mean cosine with the vector of the true class: {', '.join(own)}")
    explanation = (
        f"Left, how alike the vectors of the classes are. Right, the mean cosine between the network's output and each "
        f"vector, over {len(inspection.labels):,} test images. If the network has learned all that the vectors hold, "
        "both sides look alike; two equal rows on the right are classes that it cannot tell apart."
    )
    card = figure_card("Class vectors and images", "Cosines. Rows on the right are true classes.", image, wide=True)
    return section("Similarity to the class vectors", explanation, card)


def similarity_chart(vectors: np.ndarray, images: np.ndarray, classes: Sequence[str]) -> Figure:
    """Two heat maps [C, C] of cosines on one scale; NaN for a class without examples."""
    figure = new_figure(92 * len(classes) + 210, 40 * len(classes) + 110)
    norm = Normalize(min(float(vectors.min()), float(np.nanmin(images)), 0.0), 1.0)
    for axes, values, title in zip(figure.subplots(1, 2), (vectors, images), ("vectors", "images"), strict=True):
        heat_map(axes, shaded(values, norm, BLUES), written(values, 2), classes, classes)
        axes.set_title(title, fontsize=9, color=INK, loc="left")
    return figure


def picture_rows(folder: ReportFolder, inspection: Inspection) -> Html:
    """A row of pictures for a few examples: all values that are pictures [n, S, S, 3], if there are any."""
    pictures = {name.replace("_", " "): value for name, value in inspection.values.items() if value.ndim == 4}
    if not pictures:
        return Html()
    rows = np.linspace(0, len(inspection.labels) - 1, min(PICTURE_ROWS, len(inspection.labels))).round().astype(int)
    labels = [inspection.classes[inspection.labels[row]] for row in rows]
    figure = picture_chart({name: value[rows] for name, value in pictures.items()}, labels)
    alt = f"Images of {', '.join(labels)}, each as {', '.join(pictures)}"
    explanation = "All pictures of a row share a scale of brightness; black and white are those of the first."
    card = figure_card("From stage to stage", explanation, folder.chart("pictures", figure, alt), wide=True)
    return section("Pictures inside the network", "What each stage of the network sees.", card)


def picture_chart(pictures: dict[str, np.ndarray], labels: Sequence[str]) -> Figure:
    """Float pictures [n, S, S, 3] by name, side by side; the first of a row gives its range of brightness."""
    side = 112
    figure = new_figure(84 + side * len(pictures), 40 + side * len(labels))
    grid = figure.subplots(len(labels), len(pictures), squeeze=False)
    first = next(iter(pictures.values()))
    low, high = first.min(axis=(1, 2, 3)), first.max(axis=(1, 2, 3))
    for column, (name, values) in enumerate(pictures.items()):
        for row, picture in enumerate(values):
            # Interpolation leaves the range of the first picture: such pixels stay black or white.
            bright = np.clip((picture - low[row]) / max(high[row] - low[row], 1e-6), 0, 1)
            bare(grid[row, column]).imshow(bright, interpolation="nearest")
            grid[row, column].set(xticks=[], yticks=[])
        grid[0, column].set_title(f"{name}\n{values.shape[1]} x {values.shape[2]}", fontsize=7.6, color=INK)
    for row, label in enumerate(labels):
        grid[row, 0].set_yticks([first.shape[1] / 2], [wrapped(label)])
    return figure


SECTIONS: dict[Callable[[ReportFolder, Inspection], Html], set[str]] = {
    frame_weights: {"frame_weights"},
    point_gates: {"points", "alpha"},
    class_similarity: {"similarity", "word_similarity"},
    picture_rows: set(),
}
