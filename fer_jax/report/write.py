"""Writes a run's report: one HTML page that shows what was learnt, how well, and where it goes wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from fer_jax.evaluation.metrics import classification_metrics, log_softmax
from fer_jax.report import charts, headline
from fer_jax.report.degraded import degraded
from fer_jax.report.folds import folds, seeds
from fer_jax.report.inside import inside
from fer_jax.report.learning import learning
from fer_jax.report.markup import (
    Html,
    class_name,
    details,
    element,
    figure_card,
    flatten,
    join,
    page,
    percent,
    section,
    table,
)
from fer_jax.report.pictures import Book
from fer_jax.report.shown import Shown
from fer_jax.report.style import class_color

MISTAKES = 24  # how many are shown, the most confident first
SAMPLES = 24


@dataclass(frozen=True)
class Predictions:
    """What the model said: logits [N, C], labels [N], images uint8 [N, H, W, 1 or 3] or None."""

    logits: np.ndarray
    labels: np.ndarray
    images: np.ndarray | None = None


@dataclass(frozen=True)
class Samples:
    """Training images: uint8 [n, H, W, C] as stored, labels [n], and uint8 as the network sees them.

    `gallery` holds some images of each class, uint8 [n, H, W, C].
    """

    images: np.ndarray
    labels: np.ndarray
    augmented: np.ndarray | None = None
    gallery: Sequence[np.ndarray] = ()


@dataclass(frozen=True)
class Profile:
    """Values [N, M] per example that the report compares between classes (`Method.profiles`)."""

    title: str
    values: np.ndarray


def write_report(
    folder: epath.Path,
    *,
    results: dict[str, Any],
    history: list[dict[str, Any]],
    predictions: Predictions | None,
    samples: Samples | None = None,
    profiles: Mapping[str, Profile] | None = None,
    shown: Shown | None = None,
) -> epath.Path:
    """Writes `folder/index.html` and the PNGs it shows, and removes those of an earlier report.

    Args:
      folder: made if missing; any path object with pathlib's methods.
      results: the content of results.json. Scores it does not hold are computed from `predictions`; a
        `config` in it is listed under the details.
      history: the lines of metrics.jsonl, empty when there was no training.
      predictions: on the split that `results` is about, in order; None where the method predicts no classes and
        `results` has `measures` of its own instead, and of several seeds, each of which has its own page.
      samples: training examples to show.
      profiles: per name, values to compare between classes.
      shown: what the method shows of its inside on a few examples.

    Returns:
      The path of index.html.
    """
    classes = results["classes"]
    folder.mkdir(parents=True, exist_ok=True)
    book = Book(folder)
    book.clear()
    if "seeds" in results:
        trained = seeds(results)
    else:
        trained = folds(results) if "folds" in results else learning(book, results, history)
    if "seeds" in results:
        body = [headline.header(results), headline.seed_cards(results), trained, _details(results)]
    elif predictions is None:
        top = [headline.header(results), headline.measure_cards(results), trained]
        body = [*top, inside(book, shown), _samples(book, classes, samples), _details(results)]
    else:
        measured = classification_metrics(predictions.logits, predictions.labels, classes)
        results = measured | {key: value for key, value in results.items() if value is not None}
        confidence = np.exp(log_softmax(predictions.logits).max(axis=-1))
        body = [
            headline.header(results),
            headline.cards(results, float(confidence.mean())),
            trained,
            _classes(book, results),
            _calibration(book, results, predictions, confidence),
            _mistakes(book, results, predictions, confidence),
            degraded(results),
            inside(book, shown),
            _profiles(book, classes, predictions.labels, profiles or {}),
            _samples(book, classes, samples),
            _details(results),
        ]
    index = folder / "index.html"
    title = f"{headline.title(results)} · {headline.scored_on(results)}"
    index.write_text(page(title, body), encoding="utf-8")
    return index


def _classes(book: Book, results: Mapping[str, Any]) -> Html:
    """The confusion matrix beside the scores per class."""
    names, confusion = results["classes"], np.asarray(results["confusion"])
    alt = "Confusion matrix: " + "; ".join(
        f"{name}, {confusion[c, c]} of {confusion[c].sum()} found" for c, name in enumerate(names)
    )
    matrix = book.chart("confusion", charts.confusion_chart(confusion, names), alt)
    scores = {key: results[key] for key in ("recall", "precision", "f1", "support")}
    alt = "F1 per class: " + "; ".join(
        f"{name}, {'none' if f1 is None else percent(f1)}" for name, f1 in zip(names, scores["f1"], strict=True)
    )
    bars = book.chart("classes", charts.class_chart(names, **scores), alt)
    wide = len(names) > 10
    cards = (
        figure_card(
            "Confusion",
            "Each row is a true class. Blue is right, orange wrong, depth the share.",
            matrix,
            wide=wide,
        ),
        figure_card(
            "Class by class",
            "Recall: how many are found. Precision: how many finds are right.",
            bars,
            wide=wide,
        ),
    )
    explanation = "Which expressions it tells apart, and which it takes for each other."
    return section("Classes", explanation, element("div", *cards, class_="pair"))


def _calibration(book: Book, results: Mapping[str, Any], predictions: Predictions, confidence: np.ndarray) -> Html:
    """Whether its confidence means anything."""
    correct = predictions.logits.argmax(axis=-1) == predictions.labels
    mean = float(confidence.mean())
    image = book.chart(
        "reliability",
        charts.reliability_chart(results["reliability"], results["accuracy"], mean),
        f"Reliability diagram: accuracy {percent(results['accuracy'])}, mean confidence {percent(mean)}, "
        f"expected calibration error {percent(results['ece'])}",
    )
    facts = [
        ("Mean confidence", percent(mean)),
        ("when right", percent(float(confidence[correct].mean())) if correct.any() else "never right"),
        ("when wrong", percent(float(confidence[~correct].mean())) if not correct.all() else "never wrong"),
        ("Expected calibration error", percent(results["ece"])),
    ]
    ordered = correct[np.argsort(-confidence, kind="stable")]
    choices = [
        (
            f"on the surest {percent(share, 0)}" if share < 1 else "on all",
            f"{percent(float(ordered[: max(1, round(share * len(ordered)))].mean()))} right",
        )
        for share in (0.25, 0.5, 0.75, 0.9, 1.0)
    ]
    beside = element(
        "div",
        element("h3", "How sure it is"),
        table(facts, "facts-table"),
        element(
            "p",
            "A bar that ends below the dashed line claims more than it keeps; the hatching is the gap. "
            f"Pale bars stand on fewer than ten {headline.unit(results)}.",
        ),
        element("h3", "If it may decline to answer"),
        table(choices, "facts-table"),
    )
    explanation = (
        f"Of the {headline.unit(results)} on which it claims to be {percent(0.8, 0)} sure, are {percent(0.8, 0)} right?"
    )
    return section("Confidence", explanation, element("div", image, beside, class_="card beside"))


def _mistakes(book: Book, results: Mapping[str, Any], predictions: Predictions, confidence: np.ndarray) -> Html:
    """The most confident mistakes as pictures."""
    classes = results["classes"]
    predicted = predictions.logits.argmax(axis=-1)
    wrong = np.flatnonzero(predicted != predictions.labels)
    title = "Boldest mistakes"
    if not len(wrong):
        return section(title, f"None: all {len(predicted):,} {headline.unit(results)} are named correctly.")
    if predictions.images is None:
        return section(title, f"There are {len(wrong):,}; their images were not kept.")
    tiles = []
    for row in wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES].tolist():
        truth, seen, sure = int(predictions.labels[row]), int(predicted[row]), float(confidence[row])
        alt = f"Image {row}: labelled {classes[truth]}, predicted {classes[seen]} with {percent(sure)}"
        bar = element("i", element("b", style=f"width:{100 * sure:.1f}%"))
        caption = element(
            "figcaption",
            element("div", element("span", "true"), _class(classes, truth), class_="row"),
            element("div", element("span", "seen"), _class(classes, seen), class_="row"),
            element("div", bar, percent(sure), class_="sure"),
            element("small", f"no. {row:,}"),
        )
        picture = element("div", book.image(f"mistake_{row}", predictions.images[row], alt), class_="faces")
        tiles.append(element("figure", picture, caption, class_="tile"))
    shown = f"The {len(tiles)} of {len(wrong):,}" if len(tiles) < len(wrong) else f"All {len(wrong):,}"
    explanation = (
        f"{shown} wrong answers, surest first. Where you side with the model, suspect the label; the number "
        "is the place in the split."
        + (" A clip is shown by its middle face." if headline.unit(results) == "clips" else "")
    )
    return section(title, explanation, element("div", *tiles, class_="tiles"))


def _profiles(book: Book, classes: Sequence[str], labels: np.ndarray, profiles: Mapping[str, Profile]) -> Html:
    """What a method shows of its inside, per class."""
    if not profiles:
        return Html()
    cards = []
    for place, profile in enumerate(profiles.values()):
        mean, spread = charts.profile_charts(*_per_class(profile.values, labels, len(classes)), classes)
        name, title = f"profile_{place}", profile.title
        left = book.chart(f"{name}_mean", mean, f"{title}: mean per class")
        right = book.chart(f"{name}_spread", spread, f"{title}: standard deviation in each class")
        explanation = "Mean per class. Blue is above the mean of the classes, orange below."
        cards.append(figure_card(title, explanation, left))
        cards.append(figure_card("Spread", "Standard deviation of the same inside each class.", right))
    return section(
        "Inside the model",
        "What separates the classes in the method's own terms.",
        element("div", *cards, class_="pair"),
    )


def _per_class(values: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per class [C, M]; NaN for a class without examples."""
    values = np.asarray(values, np.float64)
    empty = np.full((num_classes, values.shape[1]), np.nan)
    mean, spread = empty, empty.copy()
    for c in np.unique(labels):
        mean[c], spread[c] = values[labels == c].mean(axis=0), values[labels == c].std(axis=0)
    return mean, spread


def _samples(book: Book, classes: Sequence[str], samples: Samples | None) -> Html:
    """Training images as stored and as the network sees them."""
    if samples is None or not len(samples.images):
        return Html()
    tiles = []
    for row, label in enumerate(samples.labels[:SAMPLES].tolist()):
        faces = [book.image(f"sample_{row}", samples.images[row], f"Training image, {classes[label]}, as stored")]
        if samples.augmented is not None:
            faces.append(book.image(f"sample_{row}_seen", samples.augmented[row], "the same, as the network sees it"))
        caption = element("figcaption", _class(classes, label))
        tiles.append(element("figure", element("div", *faces, class_="faces"), caption, class_="tile"))
    sheet = Html()
    if any(len(pictures) for pictures in samples.gallery):
        drawn = charts.gallery_chart(samples.gallery, classes)
        alt = "Training images of each class: " + ", ".join(classes)
        image = book.chart("gallery", drawn, alt)
        sheet = figure_card("Class by class", "Training images as stored, a class to a row.", image, wide=True)
    both = samples.augmented is not None
    text = "Left as stored, right as one training step sees it after augmentation." if both else "As stored."
    pairs = element("div", *tiles, class_="tiles pairs" if both else "tiles")
    return section("What it was trained on", text, join([sheet, pairs]))


def _class(classes: Sequence[str], index: int) -> Html:
    return class_name(classes[index], class_color(index))


def _details(results: Mapping[str, Any]) -> Html:
    """Everything else, folded away."""
    separate = ("config", "versions")
    rest = {key: value for key, value in results.items() if key not in (*separate, "reliability")}
    folded = [details("All scores and facts", flatten(rest))]
    folded += [details(key.capitalize(), flatten(results[key])) for key in separate if results.get(key)]
    return join(folded)
