"""Sections on what a classifier predicted and what it was trained on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_jax.evaluation.metrics import log_softmax, parts_by_class, predicted_classes
from fer_jax.labels import PARTS
from fer_jax.report.heat import DIVERGING, GRAYS, confusion_table, value_table
from fer_jax.report.images import LARGEST_SIDE, picture
from fer_jax.report.markup import Html, element, figure_card, percent, section, table
from fer_jax.report.scores import examples
from fer_jax.report.style import ORANGE, class_color

MISTAKES = 24  # how many are shown, the most confident first
SIGNS = {
    "loss": "The cross-entropy of the given label.",
    "margin": "By how much another class is more probable than the given label.",
    "uncertainty": "The uncertainty that the method learns.",
}


@dataclass(frozen=True)
class Predictions:
    """A model's predictions: logits [N, C], labels int [N], images uint8 [N, H, W, 1 or 3] or None, N file names.

    `votes` [N, C] are the annotators' distributions over the classes, where there are any; `affect` [N, 2] predicted
    valence and arousal, `true_affect` [N, 2] the annotated ones, NaN where there are none.
    """

    logits: np.ndarray
    labels: np.ndarray
    images: np.ndarray | None = None
    names: Sequence[str] = ()
    votes: np.ndarray | None = None
    affect: np.ndarray | None = None
    true_affect: np.ndarray | None = None

    @property
    def classes(self) -> np.ndarray:
        """The predicted classes, int [N]; C where there is no prediction."""
        return predicted_classes(self.logits)

    @property
    def confidence(self) -> np.ndarray:
        """The probabilities [N] of the predicted classes."""
        return np.exp(log_softmax(self.logits).max(axis=-1))


@dataclass(frozen=True)
class Profile:
    """Values [N, M] per example that are worth comparing between classes, such as attention weights."""

    title: str
    values: np.ndarray


@dataclass(frozen=True)
class Samples:
    """Training images: uint8 [n, H, W, C] as stored, labels int [n], and uint8 [n, h, w, C] as the network sees them.

    `gallery` holds some images of each class, uint8 [n, H, W, C].
    """

    images: np.ndarray
    labels: np.ndarray
    augmented: np.ndarray
    gallery: Sequence[np.ndarray]


def classes(results: Mapping[str, Any]) -> Html:
    """The confusion matrix beside the scores per class."""
    names, confusion = results["classes"], np.asarray(results["confusion"])
    truth, columns = confusion.sum(axis=1), [*names, "none"][: confusion.shape[1]]
    matrix = confusion_table(confusion, np.eye(*confusion.shape, dtype=bool), truth, names, columns)
    explanation = "Each row is a true class. Blue is right, orange wrong; the deeper, the larger the share of the row."
    if len(columns) > len(names):
        explanation += " The last column counts examples without a prediction."
    cards = [figure_card("Confusion", explanation, matrix, wide=len(names) > 10)]
    rows = []
    for c, support in enumerate(results["support"]):
        bars = (_bar(results[score][c], class_color(c)) for score in ("recall", "precision", "f1"))
        rows.append((_class_name(names, c), *bars, f"{support:,}"))
    explanation = "Recall: the share of a class that is found. Precision: the share of its predictions that are right."
    scores = table(rows, head=("Class", "Recall", "Precision", "F1", "Examples"))
    cards.append(figure_card("Class by class", explanation, scores, wide=len(names) > 10))
    if "parts" in results:
        has = parts_by_class(names)
        found = confusion_table(confusion[:, : len(names)] @ has, has > 0, truth, names, PARTS)
        explanation = (
            f"How often each basic part is predicted: blue if it belongs to the true class. "
            f"{percent(results['parts']['all_right'])} have all parts right and no others."
        )
        cards.append(figure_card("Parts", explanation, found, wide=True))
    explanation = "Which expressions the model tells apart, and which it confuses."
    return section("Classes", explanation, element("div", *cards, class_="pair"))


def calibration(results: Mapping[str, Any], predictions: Predictions) -> Html:
    """Whether the model's confidence means anything."""
    confidence, correct = predictions.confidence, predictions.classes == predictions.labels
    bins = results["reliability"]
    count = np.array(bins["count"])
    until = [f"{100 * edge:.0f}" for edge in bins["edges"][1:]]
    faint = ["pale" if number < 10 else "" for number in count]
    reliability = element(
        "div",
        vertical_bars([value or 0.0 for value in bins["accuracy"]], until, bins["confidence"], faint),
        vertical_bars(count / count.max(), [f"{number:,}" if number else "" for number in count]),
        class_="reliability",
    )
    facts = [
        ("Accuracy", percent(results["accuracy"])),
        ("Mean confidence", percent(confidence.mean())),
        ("when right", percent(confidence[correct].mean()) if correct.any() else "never right"),
        ("when wrong", percent(confidence[~correct].mean()) if not correct.all() else "never wrong"),
        ("Expected calibration error", percent(results["ece"])),
    ]
    ordered = correct[np.argsort(-confidence, kind="stable")]
    choices = [
        (
            f"the most confident {percent(share, 0)}",
            f"{percent(ordered[: max(1, round(share * len(ordered)))].mean())} right",
        )
        for share in (0.25, 0.5, 0.75, 0.9, 1.0)
    ]
    reading = (
        f"Above, by confidence in percent, the accuracy of the {examples(results)} (bars) and their mean confidence "
        "(dots): a dot above its bar is overconfident. Below, their number; bars of fewer than ten are pale."
    )
    beside = element(
        "div",
        *(element("h3", "Confidence"), table(facts), element("p", reading)),
        *(element("h3", "If only the most confident count"), table(choices)),
    )
    explanation = f"Of the {examples(results)} predicted with 80 % confidence, are 80 % right?"
    return section("Confidence", explanation, element("div", reliability, beside, class_="card beside"))


def mistakes(results: Mapping[str, Any], predictions: Predictions) -> Html:
    """The most confident mistakes as pictures."""
    names, predicted, confidence = [*results["classes"], "none"], predictions.classes, predictions.confidence
    wrong = np.flatnonzero(predicted != predictions.labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    if predictions.images is None or not len(wrong):
        return Html()
    explanation = f"{len(wrong):,} of {len(predicted):,} {examples(results)}, the most confident first. "
    explanation += "If you agree with the model, the label may be wrong. "
    if examples(results) == "clips":
        explanation += "A clip is shown by its middle face."
    tiles = []
    for row in wrong[:MISTAKES].tolist():
        truth, seen, sure = int(predictions.labels[row]), int(predicted[row]), float(confidence[row])
        alt = f"Image {row}: labeled {names[truth]}, predicted {names[seen]} with {percent(sure)}"
        name = predictions.names[row] if predictions.names else f"row {row:,}"
        caption = [*answer(names, truth, seen), _bar(sure, ORANGE), element("small", name)]
        if predictions.votes is not None:
            caption.append(element("small", _votes(names, predictions.votes[row])))
        tiles.append(tile([picture(predictions.images[row], alt)], caption))
    return section("Most confident mistakes", explanation, element("div", *tiles, class_="tiles"))


def wrong_labels(noise: Mapping[str, Any]) -> Html:
    """What the model makes of its wrong training labels (see `evaluation.wrong_labels`); empty where none are known."""
    found, cards = noise.get("model"), []
    if not found or None in found["auroc"].values():
        return Html()
    for sign, shares in found["wrong_share"].items():
        bars = vertical_bars(shares, [percent(share, 0) for share in shares], line=noise["changed_share"])
        title = f"By {sign}: AUROC {found['auroc'][sign]:.3f}"
        cards.append(figure_card(title, SIGNS[sign], element("div", bars, class_="reliability")))
    explanation = (
        f"{percent(noise['changed_share'])} of the {noise['examples']:,} training labels are wrong. The model predicts "
        f"{percent(found['memorized'])} of these wrong labels, which it has memorized, and the true class of "
        f"{percent(found['recovered'])}. Each bar is the share of wrong labels in a tenth of the training images, the "
        "most doubtful tenth on the right; the dashed line is their share of all."
    )
    return section("Wrong labels", explanation, element("div", *cards, class_="pair"))


def profile_tables(names: Sequence[str], labels: np.ndarray, profiles: Mapping[str, Profile]) -> Html:
    """Mean and standard deviation of each profile within each class."""
    cards = []
    for profile in profiles.values():
        values = np.asarray(profile.values, np.float64)
        mean, spread = np.full((2, len(names), values.shape[1]), np.nan)
        for c in np.unique(labels):
            mean[c], spread[c] = values[labels == c].mean(axis=0), values[labels == c].std(axis=0)
        apart = mean - np.nanmean(mean, axis=0)
        colored = value_table(mean, DIVERGING(0.5 + apart / max(2 * np.nanmax(np.abs(apart)), 1e-12)), names)
        explanation = "Mean per class. Blue is above the mean of the classes, orange below."
        cards.append(figure_card(profile.title, explanation, colored))
        colored = value_table(spread, GRAYS(spread / max(np.nanmax(spread), 1e-12)), names)
        explanation = "Standard deviation of the same values within each class."
        cards.append(figure_card("Spread", explanation, colored))
    explanation = "What separates the classes inside the method."
    return section("Inside the model", explanation, element("div", *cards, class_="pair")) if cards else Html()


def training_images(names: Sequence[str], samples: Samples | None) -> Html:
    """A row of images of each class, then images beside their augmented copies."""
    if samples is None:
        return Html()
    strips = []
    for c, pictures in enumerate(samples.gallery):
        if len(pictures):
            strip = strip_of(pictures, f"Training images of the class {names[c]}")
            strips.append((_class_name(names, c), strip))
    tiles = []
    for row, label in enumerate(samples.labels.tolist()):
        stored = picture(samples.images[row], f"Training image, {names[label]}, as stored")
        augmented = picture(samples.augmented[row], "the same, as the network sees it")
        tiles.append(tile([stored, augmented], [_class_name(names, label)]))
    text = "Left as stored, right as a training step sees it after augmentation."
    gallery = element("div", table(strips), class_="card gallery")
    return section("Training images", text, gallery, element("div", *tiles, class_="tiles pairs"))


def strip_of(pictures: np.ndarray, alt: str) -> Html:
    """Images [n, H, W, C] side by side, in one image."""
    return picture(np.hstack(list(pictures)), alt, largest=len(pictures) * LARGEST_SIDE // 3)


def vertical_bars(
    heights: Sequence[float] | np.ndarray,
    labels: Sequence[str],
    dots: Sequence[float | None] = (),
    styles: Sequence[str] = (),
    line: float | None = None,
) -> Html:
    """Bars side by side over their labels.

    Args:
        heights: of the bars, in 0 .. 1.
        labels: one under each bar.
        dots: heights of a dot on each bar, None for no dot.
        styles: a CSS class for each bar.
        line: the height of a dashed line across all bars.
    """
    drawn = [] if line is None else [element("hr", style=f"bottom:{100 * line:.1f}%")]
    for height, label, dot, style in itertools.zip_longest(heights, labels, dots, styles):
        parts = [element("i", style=f"height:{100 * height:.1f}%")]
        parts += [] if dot is None else [element("b", style=f"bottom:{100 * dot:.1f}%")]
        drawn.append(element("div", *parts, element("small", label), class_=f"bar {style or ''}"))
    return element("div", *drawn, class_="bars")


def tile(images: Sequence[Html], caption: Sequence[Html]) -> Html:
    """Images side by side over a caption."""
    faces = element("div", *images, class_="faces")
    return element("figure", faces, element("figcaption", *caption), class_="tile")


def answer(names: Sequence[str], truth: int, predicted: int) -> list[Html]:
    """Two lines of a caption: the true class and the predicted one."""
    return [
        element("div", element("span", "true"), _class_name(names, truth), class_="row"),
        element("div", element("span", "pred."), _class_name(names, predicted), class_="row"),
    ]


def _votes(names: Sequence[str], votes: np.ndarray) -> str:
    """The classes that annotators voted for, the most frequent first."""
    chosen = [c for c in np.argsort(-votes, kind="stable").tolist() if votes[c] > 0]
    return "votes: " + (", ".join(f"{names[c]} {percent(float(votes[c]), 0)}" for c in chosen) or "none")


def _bar(share: float | None, color: str) -> Html:
    """A share in percent beside a bar; None where there is no such share."""
    if share is None:
        return Html("none")
    bar = element("i", element("b", style=f"width:{100 * share:.1f}%;background:{color}"))
    return element("div", bar, percent(share), class_="share")


def _class_name(names: Sequence[str], index: int) -> Html:
    """A class with a dot in its color; the colors are too light to write in."""
    dot = element("i", style=f"background:{class_color(index)}")
    return element("span", dot, element("span", names[index]), class_="class")
