"""Clips in the report: the frames of a few of them, and under each frame how much a method made of it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_jax.evaluation.metrics import log_softmax
from fer_jax.report.markup import Html, element, figure_card, percent, section
from fer_jax.report.pictures import Book
from fer_jax.report.shown import Shown
from fer_jax.report.style import BLUE, FAINT, LINE, ORANGE, SOFT, font, new_figure, paler

CLIPS = 8
FRAMES = 16  # of a longer clip so many are shown, evenly spread
WIDTH, LEFT, RIGHT = 560, 34, 34  # CSS pixels
CELL, BARS, GAP, TOP, BOTTOM = 62, 92, 7, 4, 22
HATCH, HATCHED = "//////", "#c3c9d2"


def frame_weights(book: Book, shown: Shown) -> Html:
    """A strip of frames for a few clips, a bar of each frame's weight below it, and the truth where it is known."""
    if "length" not in shown.fields:
        return Html()
    length = shown.fields["length"]
    first = np.cumsum(length) - length
    probability = np.exp(log_softmax(shown.logits))
    truth_known = "frame_intensity" in shown.fields
    cards = []
    for clip in _chosen(shown, first):
        rows = np.arange(first[clip], first[clip] + length[clip])
        mask, weights = shown.fields["frame_mask"][rows], shown.values["frame_weights"][rows]
        name, predicted = shown.classes[int(shown.labels[clip])], int(probability[clip].argmax())
        # A fair share is one part in as many as there are faces: then clips of any length compare.
        share = weights * mask.sum() / max(float(weights.sum()), 1e-12)
        kept = np.unique(np.linspace(0, length[clip] - 1, min(FRAMES, length[clip])).round().astype(int))
        figure = strip(
            shown.fields["frames"][rows[kept]],
            share[kept],
            mask[kept],
            kept + 1,
            shown.fields["frame_intensity"][rows[kept]] if truth_known else None,
        )
        described = ", ".join(
            f"{number}: {f'{value:.2f}' if seen else 'no face'}"
            for number, value, seen in zip(kept + 1, share[kept], mask[kept], strict=True)
        )
        seen = f"seen as {shown.classes[predicted]}, {percent(float(probability[clip, predicted]), 0)} sure"
        left_out = f"; {len(kept)} of {length[clip]:,} frames" if len(kept) < length[clip] else ""
        alt = f"Frames of a clip of {name} with their weights: {described}"
        cards.append(figure_card(name.capitalize(), seen + left_out, book.chart(f"clip_{clip}", figure, alt)))
    if not cards:
        return Html()
    explanation = [
        "How much each frame counts in the answer: ",
        element("b", "bars", style=f"color:{BLUE}"),
        " of height 1 have a fair share, those above more. ",
    ]
    if truth_known:
        explanation += [
            "The ",
            element("b", "line", style=f"color:{ORANGE}"),
            " is the truth that the network never saw: how strong the expression is. ",
        ]
    explanation.append("Hatched frames show no face and count nothing.")
    return section("What it looks at in a clip", element("span", *explanation), element("div", *cards, class_="pair"))


def strip(
    frames: np.ndarray, share: np.ndarray, mask: np.ndarray, numbers: np.ndarray, intensity: np.ndarray | None
) -> Figure:
    """The picture of one clip.

    Args:
        frames: uint8 [n, H, W, 1 or 3]. share: weights [n], 1 is a fair share. mask: bool [n], which show a face.
        numbers: int [n], the frames' numbers. intensity: [n] in 0 .. 1, or None.
    """
    count = len(frames)
    cell = min(CELL, (WIDTH - LEFT - RIGHT) / count)
    height = TOP + cell + GAP + BARS + BOTTOM
    figure = new_figure(WIDTH, height)
    figure.set_layout_engine("none")  # everything has its place

    def place(bottom: float, tall: float) -> Axes:
        axes = figure.add_axes((LEFT / WIDTH, bottom / height, cell * count / WIDTH, tall / height))
        axes.set_xlim(-0.5, count - 0.5)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=7.4, labelcolor=SOFT, pad=2, labelfontfamily=font()[0])
        return axes

    above, below = place(BOTTOM + BARS + GAP, cell), place(BOTTOM, BARS)
    above.set_axis_off()
    above.set_ylim(0, 1)
    edge = 0.5 - 1.2 / cell  # a thin white gap between frames
    for i, frame in enumerate(frames):
        picture = np.broadcast_to(frame, (*frame.shape[:2], 3))
        alpha = 1.0 if mask[i] else 0.4
        above.imshow(picture, extent=(i - edge, i + edge, 0.5 - edge, 0.5 + edge), aspect="auto", alpha=alpha)
        if not mask[i]:
            for axes, lowest, highest in ((above, 0.5 - edge, 0.5 + edge), (below, 0, 1)):
                axes.axvspan(
                    i - edge, i + edge, lowest, highest,
                    facecolor="none", edgecolor=HATCHED, hatch=HATCH, linewidth=0, zorder=0.9,
                )  # fmt: skip
    above.set_xlim(-0.5, count - 0.5)  # imshow moves them
    above.set_ylim(0, 1)

    top = max(1.6, 1.08 * float(share.max(initial=0.0)))
    below.set_ylim(0, top)
    below.axhline(1, color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    below.axhline(0, color=LINE, linewidth=1.2, zorder=1)
    counted = np.flatnonzero(mask)
    below.bar(counted, share[counted], width=2 * edge - 0.14, color=paler(BLUE, 0.35), linewidth=0, zorder=2)
    below.set_yticks([0, 1] if top < 2 else [0, 1, int(top)])
    below.tick_params(axis="y", labelcolor=BLUE)
    below.set_xticks(range(count), [f"{number:,}" for number in numbers])
    if intensity is not None:
        truth = below.twinx()
        truth.spines[:].set_visible(False)
        truth.set_ylim(0, 1.08)
        truth.set_yticks([0, 1], ["0", "full"])
        truth.tick_params(length=0, labelsize=7.4, labelcolor=ORANGE, pad=2, labelfontfamily=font()[0])
        line = np.where(mask, intensity, np.nan)
        truth.plot(range(count), line, color=ORANGE, linewidth=1.6, marker="o", markersize=3.2, zorder=3, clip_on=False)
    return figure


def _chosen(shown: Shown, first: np.ndarray) -> list[int]:
    """One clip of each class, then more; those with a masked frame before others."""
    length, mask = shown.fields["length"], shown.fields["frame_mask"]
    masked = [int((~mask[a : a + n]).sum()) for a, n in zip(first, length, strict=True)]
    order = sorted(np.flatnonzero(length > 0).tolist(), key=lambda clip: (-min(masked[clip], 1), clip))
    seen: set[int] = set()
    leading, others = [], []
    for clip in order:
        label = int(shown.labels[clip])
        (others if label in seen else leading).append(clip)
        seen.add(label)
    return sorted((leading + others)[:CLIPS], key=lambda clip: (int(shown.labels[clip]), clip))
