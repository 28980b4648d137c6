"""Scores of a classifier: accuracy, recall, F1, likelihood, calibration, agreement with annotators.

Every score is computed once over all examples, gathered in order, in float64. Nothing is averaged per batch, so no
score depends on the batch size or the number of devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num, Shaped
from scipy import special

from fer_jax.labels import AFFECT, MANY_CLASSES, PARTS, are_compound, parts_of

CALIBRATION_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"
AFFECT_SCORES = ("valence_ccc", "arousal_ccc", "valence_rmse", "arousal_rmse")
INTERVAL = (2.5, 97.5)  # percentiles of the bootstrap: a 95 % interval


def classification_metrics(
    logits: Float[np.ndarray, "N C"],
    labels: Int[np.ndarray, " N"],
    classes: Sequence[str],
    *,
    votes: Float[np.ndarray, "N C"] | None = None,
    bootstrap: int = 1000,
) -> dict[str, Any]:
    """Returns every score of a set of predictions, in plain JSON types.

    Args:
        logits: their softmax is the prediction. Equal logits are no prediction and count as an error.
        labels: the true class of each example, in [0, C).
        classes: C names.
        votes: the annotators' votes, each row a distribution over the classes; adds `measures_to_votes`, and
            `ece_to_votes`, which uses the share of votes for the predicted class instead of right or wrong.
        bootstrap: resamples behind the 95 % intervals; 0 leaves the intervals out.

    Returns:
        `num_examples, classes, accuracy, mean_recall, macro_f1, nll, ece, confusion` (rows are the truth; with a last
        column where some examples have no prediction; left out with more than `MANY_CLASSES`), the lists
        `recall, precision, f1, support` in class order, `classes_without_examples` (`mean_recall` leaves them out),
        `accuracy_interval, mean_recall_interval, macro_f1_interval` ([low, high]), `reliability`, of compound classes
        `parts` (see `part_scores`). A ratio without a denominator (the recall of a class without examples) is None.
    """
    num_examples, num_classes = logits.shape

    log_probabilities = log_softmax(logits)
    predictions = predicted_classes(logits)
    counts = _counts(labels, predictions, np.ones(num_examples, np.int64), num_classes)
    accuracy, mean_recall, macro_f1 = _scores(*counts)
    recall, precision, f1 = _class_scores(*counts)
    support = counts[1]
    confidence = np.exp(log_probabilities.max(axis=-1))
    reliability = reliability_bins(confidence, predictions == labels)

    scores: dict[str, Any] = {
        "num_examples": num_examples,
        "classes": [str(name) for name in classes],
        "accuracy": float(accuracy),
        "mean_recall": float(mean_recall),
        "macro_f1": float(macro_f1),
        "nll": float(-np.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()),
        "ece": calibration_error(reliability),
        "recall": _plain(recall),
        "precision": _plain(precision),
        "f1": _plain(f1),
        "support": support.tolist(),
        "classes_without_examples": [str(classes[c]) for c in np.flatnonzero(support == 0).tolist()],
        "reliability": reliability,
    }
    if num_classes <= MANY_CLASSES:
        confusion = confusion_matrix(labels, predictions, num_classes)
        scores["confusion"] = confusion.tolist()
        if are_compound(classes):
            scores["parts"] = part_scores(confusion, classes)
    if bootstrap > 0:
        scores |= bootstrap_intervals(labels, predictions, num_classes, bootstrap)
    if votes is not None:
        scores |= {name: float(values.mean()) for name, values in measures_to_votes(votes, log_probabilities).items()}
        voted = np.take_along_axis(np.pad(votes, ((0, 0), (0, 1))), predictions[:, None], axis=1)[:, 0]
        scores["ece_to_votes"] = calibration_error(reliability_bins(confidence, voted))
    return scores


def log_softmax(logits: Num[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    """Log-probabilities in float64."""
    return special.log_softmax(logits.astype(np.float64), axis=-1)


def predicted_classes(logits: Num[np.ndarray, "N C"]) -> Int[np.ndarray, " N"]:
    """Returns the most probable class of each example; C (no prediction) where all logits are equal."""
    alike = (logits.max(axis=1) == logits.min(axis=1)) & (logits.shape[1] > 1)
    return np.where(alike, logits.shape[1], logits.argmax(axis=1))


def confusion_matrix(
    labels: Int[np.ndarray, " N"], predictions: Int[np.ndarray, " N"], num_classes: int
) -> Int[np.ndarray, "C D"]:
    """Counts of (truth, prediction); rows are the truth. There is an extra last column if some predictions are C."""
    columns = max(num_classes, int(predictions.max()) + 1)
    cells = labels.astype(np.int64) * columns + predictions
    return np.bincount(cells, minlength=num_classes * columns).reshape(num_classes, columns)


def part_scores(confusion: Int[np.ndarray, "C D"], classes: Sequence[str]) -> dict[str, Any]:
    """Returns which basic parts of compound expressions were right.

    Returns:
        `all_right`, the fraction of examples with exactly their parts predicted; `one_right`, the fraction of examples
        with parts for which at least one is predicted; `recall` and `precision` of each part by name.
    """
    has = parts_by_class(classes)
    common = has @ has.T
    same = (has[:, None] == has).all(axis=-1)
    predicted = confusion[:, : len(confusion)]  # without the column of examples that have no prediction
    hits = np.einsum("cd,cl,dl->l", predicted, has, has)
    return {
        "all_right": float((predicted * same).sum() / confusion.sum()),
        "one_right": float((predicted * (common > 0)).sum() / max(confusion[has.any(axis=1)].sum(), 1)),
        "recall": dict(zip(PARTS, _plain(_ratio(hits, confusion.sum(axis=1) @ has)), strict=True)),
        "precision": dict(zip(PARTS, _plain(_ratio(hits, predicted.sum(axis=0) @ has)), strict=True)),
    }


def parts_by_class(classes: Sequence[str]) -> Int[np.ndarray, "C 6"]:
    """Returns a matrix with 1 for the parts of each class, in the order of `PARTS`."""
    return np.array([[part in (parts_of(name) or ()) for part in PARTS] for name in classes], int)


def reliability_bins(confidence: Float[np.ndarray, " N"], correct: Shaped[np.ndarray, " N"]) -> dict[str, list]:
    """Sorts examples into equal-width bins of top-label confidence, each (low, high] as in Guo et al. 2017.

    Returns:
        `edges` [bins + 1] and, per bin, `count`, mean `confidence` and `accuracy` (both None in an empty bin).
    """
    bins = CALIBRATION_BINS
    edges = np.linspace(0.0, 1.0, bins + 1)
    # A softmax of 1 may round to just above 1, which belongs in the last bin.
    place = np.minimum(np.searchsorted(edges[1:], confidence, side="left"), bins - 1)
    count = np.bincount(place, minlength=bins)
    mean_confidence = _ratio(np.bincount(place, weights=confidence, minlength=bins), count)
    accuracy = _ratio(np.bincount(place, weights=correct.astype(np.float64), minlength=bins), count)
    return {
        "edges": edges.tolist(),
        "count": count.tolist(),
        "confidence": _plain(mean_confidence),
        "accuracy": _plain(accuracy),
    }


def calibration_error(reliability: dict[str, list]) -> float:
    """Expected calibration error: the gap between confidence and accuracy, averaged over the examples."""
    count = np.array(reliability["count"])
    gap = np.abs(np.array(reliability["confidence"], float) - np.array(reliability["accuracy"], float))
    return float(np.average(gap[count > 0], weights=count[count > 0]))


def measures_to_votes(
    votes: Num[np.ndarray, "N C"], log_probabilities: Float[np.ndarray, "N C"]
) -> dict[str, Float[np.ndarray, " N"]]:
    """The six measures of label distribution learning (Geng, IEEE TKDE 2016, table 1), by example.

    With votes d and predictions p: Chebyshev max |d - p|, Clark sqrt(sum (d - p)^2 / (d + p)^2), Canberra
    sum |d - p| / (d + p), KL(d || p) in nats with 0 log 0 = 0 (the smaller the better), cosine and intersection
    sum min(d, p) (the larger the better).
    """
    votes = votes.astype(np.float64)
    d, p = votes / votes.sum(axis=-1, keepdims=True), np.exp(log_probabilities)
    log_d = np.log(d, out=np.zeros_like(d), where=d > 0)
    gap = np.abs(d - p)
    share = gap / np.maximum(d + p, 1e-8)
    return {
        "kl_to_votes": (d * (log_d - log_probabilities)).sum(axis=-1),
        "chebyshev_to_votes": gap.max(axis=-1),
        "clark_to_votes": np.sqrt((share**2).sum(axis=-1)),
        "canberra_to_votes": share.sum(axis=-1),
        "cosine_to_votes": (d * p).sum(axis=-1) / (np.linalg.norm(d, axis=-1) * np.linalg.norm(p, axis=-1)),
        "intersection_to_votes": np.minimum(d, p).sum(axis=-1),
    }


def affect_scores(predicted: Float[np.ndarray, "N 2"], truth: Float[np.ndarray, "N 2"]) -> dict[str, Any]:
    """Scores valence and arousal on the examples that are annotated, those whose truth is not NaN.

    Returns:
        `valence_ccc, arousal_ccc`, the concordance correlation 2 cov(p, t) / (var p + var t + (mean p - mean t)^2) with
        variances over N (Lin, Biometrics 1989); `valence_rmse, arousal_rmse`; None where nothing is annotated, and for
        the concordance of equal constants. `affect_examples`, the number of annotated examples.
    """
    known = ~np.isnan(truth).any(axis=1)
    p, t = predicted[known].astype(np.float64), truth[known].astype(np.float64)
    found: dict[str, Any] = dict.fromkeys(AFFECT_SCORES) | {"affect_examples": int(known.sum())}
    for column, name in enumerate(AFFECT if known.any() else ()):
        x, y = p[:, column], t[:, column]
        spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
        if spread > 0:
            found[f"{name}_ccc"] = float(2 * ((x - x.mean()) * (y - y.mean())).mean() / spread)
        found[f"{name}_rmse"] = float(np.sqrt(((x - y) ** 2).mean()))
    return found


def bootstrap_intervals(
    labels: Int[np.ndarray, " N"],
    predictions: Int[np.ndarray, " N"],
    num_classes: int,
    draws: int,
) -> dict[str, list[float]]:
    """95 % percentile intervals of the scores that depend only on the confusion matrix; the same draws every time.

    The bootstrap draws N examples with replacement. Accuracy, mean recall and macro F1 depend only on how many of them
    fall into each (truth, prediction) cell, and N independent draws fall into the cells as one multinomial with the
    cells' shares. Drawing the multinomial is therefore the same bootstrap, not an approximation, and costs a number for
    each occupied cell instead of N. A resample's mean recall leaves out classes of which it holds no example.
    """
    pairs, count = np.unique(np.stack([labels, predictions]), axis=1, return_counts=True)
    resampled = np.random.default_rng(0).multinomial(len(labels), count / len(labels), size=draws)
    scores = _scores(*_counts(pairs[0], pairs[1], resampled, num_classes))
    return {
        f"{name}_interval": np.percentile(score, INTERVAL).tolist()
        for name, score in zip(("accuracy", "mean_recall", "macro_f1"), scores, strict=True)
    }


def mean_interval(values: Sequence[float] | np.ndarray) -> list[float]:
    """Student's 95 % interval [low, high] of the mean of the distribution of independent `values`, at least two."""
    drawn = np.asarray(values, float)
    half = special.stdtrit(len(drawn) - 1, 0.975) * drawn.std(ddof=1) / len(drawn) ** 0.5
    return [float(drawn.mean() - half), float(drawn.mean() + half)]


def confidence_threshold(logits: Num[np.ndarray, "N C"], labels: Int[np.ndarray, " N"], risk: float) -> float | None:
    """Returns the lowest confidence threshold above which at most a fraction `risk` of the predictions is wrong.

    Selective classification (Geifman and El-Yaniv, NeurIPS 2017): the model abstains below the threshold. None if even
    the most confident predictions are wrong too often.
    """
    confidence = np.exp(log_softmax(logits).max(axis=1))
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(predicted_classes(logits[order]) != labels[order]) / np.arange(1, len(order) + 1)
    last = np.append(np.diff(confidence[order]) != 0, True)  # of equally confident ones, which stand or fall together
    good = np.flatnonzero(last & (wrong <= risk))
    return float(confidence[order[good[-1]]]) if len(good) else None


def risk_and_coverage(
    logits: Num[np.ndarray, "N C"], labels: Int[np.ndarray, " N"], threshold: float
) -> dict[str, float | None]:
    """Returns `coverage`, the fraction of predictions with at least this confidence, and `risk`, their error rate."""
    sure = np.exp(log_softmax(logits).max(axis=1)) >= threshold
    wrong = predicted_classes(logits) != labels
    return {"risk": float(wrong[sure].mean()) if sure.any() else None, "coverage": float(sure.mean())}


def _counts(
    truth: Int[np.ndarray, " K"], predicted: Int[np.ndarray, " K"], count: Int[np.ndarray, "*R K"], num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often each class is right, is the truth, and is predicted, each [*R, C], from `count` examples per pair."""
    right = _summed(count * (truth == predicted), truth, num_classes)
    return right, _summed(count, truth, num_classes), _summed(count, predicted, num_classes + 1)[..., :-1]


def _summed(values: Int[np.ndarray, "*R K"], group: Int[np.ndarray, " K"], groups: int) -> Int[np.ndarray, "*R groups"]:
    """The sum of the values of each group, 0 of one that does not occur."""
    order = np.argsort(group, kind="stable")
    found, starts = np.unique(group[order], return_index=True)
    sums = np.zeros((*values.shape[:-1], groups), np.int64)
    sums[..., found] = np.add.reduceat(values[..., order], starts, axis=-1)
    return sums


def _class_scores(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, ...]:
    """Recall, precision and F1 per class, each [*R, C]; NaN where there is no denominator."""
    return _ratio(hits, true), _ratio(hits, predicted), _ratio(2 * hits, true + predicted)


def _scores(hits: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Accuracy, mean recall and macro F1, each [*R].

    Mean recall averages over the classes that have examples, macro F1 over those that occur in the truth or in the
    predictions (scikit-learn's rule).
    """
    recall, _, f1 = _class_scores(hits, true, predicted)
    return hits.sum(axis=-1) / true.sum(axis=-1), np.nanmean(recall, axis=-1), np.nanmean(f1, axis=-1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient in float64, NaN where the denominator is 0."""
    out = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def _plain(values: np.ndarray) -> list[float | None]:
    """A list that JSON can hold: NaN becomes None."""
    return [None if np.isnan(value) else float(value) for value in values]
