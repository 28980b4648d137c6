"""Sections on a method's intermediates. The names of the values decide which are drawn, so no method is known here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.colors import to_hex

from fer_jax.evaluation.metrics import log_softmax
from fer_jax.report.heat import BLUES, DIVERGING, value_table
from fer_jax.report.images import picture
from fer_jax.report.inspection import Inspection
from fer_jax.report.markup import Html, element, figure_card, join, percent, section, table
from fer_jax.report.sections import answer, strip_of, tile, vertical_bars
from fer_jax.report.style import BLUE, ORANGE

CLIPS = 8
FRAMES = 16  # of a longer clip so many are shown, evenly spaced
PICTURE_ROWS = 8
NARROWEST = 0.15  # the colors of gates reach at least this far from a half
SMALLEST, LARGEST = 0.010, 0.042  # radius of a closed and of an open gate, as a share of the image's side


def method_sections(inspection: Inspection | None) -> Html:
    """Draws each section all of whose values are there."""
    if inspection is None:
        return Html()
    names = set(inspection.values)
    return join(draw(inspection) for draw, needed in SECTIONS.items() if needed <= names)


def frame_weights(inspection: Inspection) -> Html:
    """The frames of a few clips, below each a bar of its weight, and the truth where it is known.

    Reads `frame_weights` and the fields `frames`, `frame_mask`, `length` and, if there, `frame_intensity`.
    """
    fields, classes = inspection.fields, inspection.classes
    probability = np.exp(log_softmax(inspection.logits))
    truth = fields.get("frame_intensity")
    cards = []
    for clip in _clips(inspection):
        rows = fields["length"][:clip].sum() + np.arange(fields["length"][clip])
        kept = np.unique(np.linspace(0, len(rows) - 1, min(FRAMES, len(rows))).round().astype(int))
        mask = fields["frame_mask"][rows]
        share = fair_shares(inspection.values["frame_weights"][rows], mask)[kept]
        top = max(1.6, 1.08 * float(share.max()))
        dots = [None] * len(kept) if truth is None else [float(truth[rows[k]]) if mask[k] else None for k in kept]
        styles = ["" if seen else "blank" for seen in mask[kept]]
        bars = vertical_bars(share / top, [f"{number + 1:,}" for number in kept], dots, styles, line=1 / top)
        faded = np.where(mask[kept][:, None, None, None], 1.0, 0.4)
        frames = (255 - faded * (255 - fields["frames"][rows[kept]].astype(float))).astype(np.uint8)
        name, predicted = classes[int(inspection.labels[clip])], int(probability[clip].argmax())
        film = strip_of(frames, f"Frames of a clip of {name}")
        described = f"predicted {classes[predicted]}, {percent(probability[clip, predicted], 0)} confident"
        described += f"; {len(kept)} of {len(rows):,} frames" if len(kept) < len(rows) else ""
        width = f"max-width:{62 * len(kept)}px"
        cards.append(figure_card(name.capitalize(), described, element("div", film, bars, class_="film", style=width)))
    explanation = [
        *("How much each frame counts: ", element("b", "bars", style=f"color:{BLUE}")),
        " that reach the dashed line have a fair share. Hatched frames show no face and do not count. ",
    ]
    if truth is not None:
        dots = element("b", "dots", style=f"color:{ORANGE}")
        explanation += ["The ", dots, " are the true strength of the expression, which the network never saw."]
    return section("Weights of frames", element("span", *explanation), element("div", *cards, class_="pair"))


def fair_shares(weights: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Weights [n] of frames in fair shares, one over the number of faces (`mask` [n])."""
    return weights * mask.sum() / max(float(weights.sum()), 1e-12)


def _clips(inspection: Inspection) -> list[int]:
    """Clips that have frames: one of each class first, then more, in order of classes."""
    taken: dict[int, int] = {}
    turns = []
    for clip in np.flatnonzero(inspection.fields["length"]).tolist():
        label = int(inspection.labels[clip])
        taken[label] = taken.get(label, 0) + 1
        turns.append((taken[label], label, clip))
    return [clip for _, clip in sorted((label, clip) for _, label, clip in sorted(turns)[:CLIPS])]


def point_gates(inspection: Inspection) -> Html:
    """Faces with gates `alpha` [n, P or P + 1] in (0, 1) at `points` [n, P, 2], also behind objects if there are such.

    It is empty if every gate is 1, which is how a method without gates answers.
    """
    views = [inspection] if inspection.occluded is None else [inspection, inspection.occluded]
    alphas = np.concatenate([view.values["alpha"] for view in views])
    if (alphas == 1).all():
        return Html()
    reach = max(NARROWEST, float(np.abs(alphas - 0.5).max()))
    whole = alphas.shape[1] > inspection.values["points"].shape[1]
    tiles = []
    for row in np.argsort(inspection.labels, kind="stable").tolist():
        faces, caption = [], []
        for number, view in enumerate(views):
            faces.append(_gated(view, row, reach))
            caption += answer(view.classes, int(view.labels[row]), int(view.logits[row].argmax()))[number:]
            caption += [element("small", f"gate of the whole face {view.values['alpha'][row, -1]:.2f}")] * whole
        tiles.append(tile(faces, caption))
    text = f"A circle is small and orange where the gate is closed ({0.5 - reach:.2f}), large and blue where it is "
    text += f"open ({0.5 + reach:.2f}). The gates are learned from the expression alone: no label says what is covered."
    if len(views) > 1:
        text += " Left the image, right the same behind an object of a kind that training never saw."
    pairs = "tiles pairs" if len(views) > 1 else "tiles"
    return section("Where it looks", text, element("div", *tiles, class_=pairs))


def _gated(view: Inspection, row: int, reach: float) -> Html:
    """One face with a circle per gate."""
    image, points = view.fields["image"][row], view.fields["points"][row]
    height, width = image.shape[:2]
    circles = []
    for (x, y), alpha in zip(points, view.values["alpha"][row], strict=False):
        opened = 0.5 + (alpha - 0.5) / (2 * reach)
        radius = f"{max(height, width) * (SMALLEST + (LARGEST - SMALLEST) * opened):.2f}"
        circles.append(element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=radius, fill=to_hex(DIVERGING(opened))))
    face = picture(image, f"A face of {view.classes[view.labels[row]]}")
    return element("div", face, element("svg", *circles, viewBox=f"-0.5 -0.5 {width} {height}"), class_="gated")


def class_similarity(inspection: Inspection) -> Html:
    """Cosines between the class vectors beside the mean cosine of each class's images with each vector.

    Reads `word_similarity` [n, C, C], the same for every example, and `similarity` [n, C].
    """
    vectors, cosines = inspection.values["word_similarity"][0], inspection.values["similarity"]
    images = np.full(vectors.shape, np.nan)
    for c in np.unique(inspection.labels):
        images[c] = cosines[inspection.labels == c].mean(axis=0)
    low, names = min(float(vectors.min()), float(np.nanmin(images)), 0.0), inspection.classes
    tables = [value_table(v, BLUES((v - low) / (1 - low)), names, names) for v in (vectors, images)]
    explanation = (
        f"Left, how alike the vectors of the classes are. Right, the mean cosine between the network's output and each "
        f"vector, over {len(inspection.labels):,} test images. If the network has learned all that the vectors hold, "
        "both sides look alike; two equal rows on the right are classes that it cannot tell apart."
    )
    cards = [
        figure_card("Class vectors", "Cosines of the vectors of the classes with each other.", tables[0]),
        figure_card("Images", "Mean cosine of the images of each true class (rows) with each vector.", tables[1]),
    ]
    return section("Similarity to the class vectors", explanation, element("div", *cards, class_="pair"))


def picture_rows(inspection: Inspection) -> Html:
    """A row of pictures for a few examples: all values that are pictures [n, S, S, 3], if there are any."""
    pictures = {name: value for name, value in inspection.values.items() if value.ndim == 4}
    if not pictures:
        return Html()
    rows = []
    for row in np.unique(np.linspace(0, len(inspection.labels) - 1, PICTURE_ROWS).round().astype(int)).tolist():
        first = next(iter(pictures.values()))[row]
        cells = [picture(in_range(value[row], first), name) for name, value in pictures.items()]
        rows.append((inspection.classes[int(inspection.labels[row])], *cells))
    titles = [f"{name.replace('_', ' ')}, {value.shape[1]} x {value.shape[2]}" for name, value in pictures.items()]
    explanation = "What each stage of the network sees. All pictures of a row share the brightness range of the first."
    card = element("div", table(rows, head=("", *titles)), class_="card stages")
    return section("Pictures inside the network", explanation, card)


def in_range(picture: np.ndarray, first: np.ndarray) -> np.ndarray:
    """A float picture as uint8, from black at the lowest value of `first` to white at its highest."""
    low, high = float(first.min()), float(first.max())
    return np.round(255 * np.clip((picture - low) / max(high - low, 1e-6), 0, 1)).astype(np.uint8)


SECTIONS: dict[Callable[[Inspection], Html], set[str]] = {
    frame_weights: {"frame_weights"},
    point_gates: {"points", "alpha"},
    class_similarity: {"similarity", "word_similarity"},
    picture_rows: set(),
}
