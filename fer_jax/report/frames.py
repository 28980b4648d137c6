"""Clips in the report: the frames of a few of them, and under each frame how much it counts."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fer_jax.evaluation.metrics import log_softmax
from fer_jax.report.folder import ReportFolder
from fer_jax.report.inspection import Inspection
from fer_jax.report.markup import Html, element, figure_card, percent, section
from fer_jax.report.style import BLUE, FAINT, ORANGE, bare, new_figure, paler

CLIPS = 8
FRAMES = 16  # of a longer clip so many are shown, evenly spaced
CELL, BARS, MARGIN, BOTTOM = 62, 92, 34, 22  # CSS pixels


def frame_weights(folder: ReportFolder, inspection: Inspection) -> Html:
    """A strip of frames for a few clips, a bar of each frame's weight below it, and the truth where it is known.

    Reads `frame_weights` and the fields `frames`, `frame_mask`, `length` and, if there, `frame_intensity`.
    """
    fields, classes = inspection.fields, inspection.classes
    truth = fields.get("frame_intensity")
    probability = np.exp(log_softmax(inspection.logits))
    first = np.cumsum(fields["length"]) - fields["length"]
    cards = []
    for clip in _chosen(inspection):
        rows = first[clip] + np.arange(fields["length"][clip])
        mask, weights = fields["frame_mask"][rows], inspection.values["frame_weights"][rows]
        # A fair share is one over the number of faces: with it clips of any length compare.
        share = weights * mask.sum() / max(float(weights.sum()), 1e-12)
        kept = np.unique(np.linspace(0, len(rows) - 1, min(FRAMES, len(rows))).round().astype(int))
        shown = rows[kept]
        intensity = None if truth is None else truth[shown]
        figure = strip(fields["frames"][shown], share[kept], mask[kept], kept + 1, intensity)
        name, predicted = classes[inspection.labels[clip]], int(probability[clip].argmax())
        described = f"predicted {classes[predicted]}, {percent(probability[clip, predicted], 0)} confident"
        described += f"; {len(kept)} of {len(rows):,} frames" if len(kept) < len(rows) else ""
        bars = ", ".join(f"{number} {value:.2f}" for number, value in zip(kept + 1, share[kept], strict=True))
        image = folder.chart(f"clip_{clip}", figure, f"Frames of a clip of {name} and their weights: {bars}")
        cards.append(figure_card(name.capitalize(), described, image))
    explanation = [
        *("How much each frame counts: ", element("b", "bars", style=f"color:{BLUE}")),
        " of height 1 have a fair share, higher ones more. Hatched frames show no face and do not count. ",
    ]
    if truth is not None:
        line = element("b", "line", style=f"color:{ORANGE}")
        explanation += ["The ", line, " is the true strength of the expression, which the network never saw."]
    return section("Weights of frames", element("span", *explanation), element("div", *cards, class_="pair"))


def strip(
    frames: np.ndarray, share: np.ndarray, mask: np.ndarray, numbers: np.ndarray, intensity: np.ndarray | None
) -> Figure:
    """The picture of one clip.

    Args:
        frames: uint8 [n, H, W, 1 or 3].
        share: weights [n]; 1 is a fair share.
        mask: bool [n], which frames show a face.
        numbers: int [n], the frames' numbers.
        intensity: [n] in 0 .. 1, or None.
    """
    width, height = CELL * 8 + 2 * MARGIN, CELL + BARS + BOTTOM + 8
    cell = min(CELL, CELL * 8 / len(frames))
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # so that bars stand exactly under square frames

    def place(bottom: float, tall: float):
        axes = figure.add_axes((MARGIN / width, bottom / height, cell * len(frames) / width, tall / height))
        axes.set_xlim(-0.5, len(frames) - 0.5)
        return bare(axes)

    above, below = place(BOTTOM + BARS + 6, cell), place(BOTTOM, BARS)
    for i, frame in enumerate(frames):
        picture = np.broadcast_to(frame, (*frame.shape[:2], 3))
        above.imshow(picture, extent=(i - 0.48, i + 0.48, 0.02, 0.98), aspect="auto", alpha=1.0 if mask[i] else 0.4)
        if not mask[i]:
            for axes in (above, below):
                axes.axvspan(i - 0.48, i + 0.48, facecolor="none", edgecolor="#c3c9d2", hatch="//////", linewidth=0)
    above.set(xlim=below.get_xlim(), ylim=(0, 1))  # imshow moves them
    above.set_axis_off()
    top = max(1.6, 1.08 * float(share.max(initial=0.0)))
    counted = np.flatnonzero(mask)
    below.axhline(1, color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    below.bar(counted, share[counted], width=0.8, color=paler(BLUE, 0.35), linewidth=0, zorder=2)
    below.set_ylim(0, top)
    below.set_yticks([0, 1] if top < 2 else [0, 1, int(top)])
    below.set_xticks(range(len(frames)), [f"{number:,}" for number in numbers])
    below.tick_params(labelsize=7.4)
    if intensity is not None:
        truth = bare(below.twinx())
        truth.set_ylim(0, 1.08)
        truth.set_yticks([0, 1], ["0", "full"])
        truth.tick_params(axis="y", labelsize=7.4, labelcolor=ORANGE)
        line = np.where(mask, intensity, np.nan)
        truth.plot(line, color=ORANGE, linewidth=1.6, marker="o", markersize=3.2, zorder=3, clip_on=False)
    return figure


def _chosen(inspection: Inspection) -> list[int]:
    """Clips that have frames: one of each class first, then more, in order of classes."""
    taken: dict[int, int] = {}
    turns = []
    for clip in np.flatnonzero(inspection.fields["length"]).tolist():
        label = int(inspection.labels[clip])
        taken[label] = taken.get(label, 0) + 1
        turns.append((taken[label], label, clip))
    return [clip for _, clip in sorted((label, clip) for _, label, clip in sorted(turns)[:CLIPS])]
