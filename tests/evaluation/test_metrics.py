"""Scores against scikit-learn, hand-computed answers and brute force."""

import json
import math
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as reference

from fer_jax.evaluation.metrics import (
    affect_scores,
    bootstrap_intervals,
    classification_metrics,
    confidence_threshold,
    confusion_matrix,
    log_softmax,
    risk_and_coverage,
)
from fer_jax.evaluation.results import never_recognized

NAMES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")


@st.composite
def predictions(draw):
    """Logits and labels in which classes may be absent from the truth, the predictions or both."""
    count, classes = draw(st.integers(1, 40)), draw(st.integers(2, 8))
    logits = draw(hnp.arrays(np.float32, (count, classes), elements=st.floats(-12, 12, width=32)))
    labels = draw(hnp.arrays(np.int32, count, elements=st.integers(0, classes - 1)))
    logits[:, 0] += np.ptp(logits, axis=1) == 0  # equal ones are no prediction
    return logits, labels


def random_predictions(count, classes=7, seed=0, skill=1.5):
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, size=count, p=rng.dirichlet(np.full(classes, 3.0)))
    logits = rng.normal(size=(count, classes)) + skill * np.eye(classes)[labels]
    return logits.astype(np.float32), labels.astype(np.int32)


@settings(max_examples=60, deadline=None)
@given(predictions())
def test_agrees_with_scikit_learn(case):
    logits, labels = case
    classes = logits.shape[1]
    scores = classification_metrics(logits, labels, NAMES[:classes], bootstrap=0)
    predicted = logits.argmax(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where a class is absent; what it returns is the rule here
        expected = {
            "accuracy": reference.accuracy_score(labels, predicted),
            "mean_recall": reference.balanced_accuracy_score(labels, predicted),
            "macro_f1": reference.f1_score(labels, predicted, average="macro", zero_division=0),
            "nll": reference.log_loss(labels, np.exp(log_softmax(logits)), labels=range(classes)),
        }
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    table = reference.confusion_matrix(labels, predicted, labels=range(classes))
    np.testing.assert_array_equal(scores["confusion"], table)
    assert scores["support"] == table.sum(1).tolist()
    present = np.unique(labels)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        labels, predicted, labels=present, zero_division=0
    )
    np.testing.assert_allclose([scores["recall"][c] for c in present], recall, rtol=1e-9)
    np.testing.assert_allclose([scores["precision"][c] or 0.0 for c in present], precision, rtol=1e-9)
    np.testing.assert_allclose([scores["f1"][c] for c in present], f1, rtol=1e-9)


def test_equal_logits_are_no_prediction_and_wrong():
    logits, labels = random_predictions(200)
    logits[::5] = 0.5
    scores = classification_metrics(logits, labels, NAMES[:7])
    predicted = np.where(np.arange(200) % 5 == 0, 7, logits.argmax(axis=1))
    recall, precision = (
        score(labels, predicted, labels=range(7), average=None)
        for score in (reference.recall_score, reference.precision_score)
    )
    np.testing.assert_allclose(scores["recall"], recall)
    np.testing.assert_allclose(scores["precision"], precision)
    assert scores["accuracy"] == (predicted == labels).mean()
    assert scores["accuracy_interval"][0] < scores["accuracy"] < scores["accuracy_interval"][1]
    np.testing.assert_array_equal(np.sum(scores["confusion"], axis=0)[-1], 40)
    assert sum(scores["support"]) == 200


@settings(max_examples=25, deadline=None)
@given(predictions(), st.randoms(use_true_random=False))
def test_order_of_examples_does_not_matter(case, random):
    logits, labels = case
    order = random.sample(range(len(labels)), len(labels))
    first = classification_metrics(logits, labels, NAMES[: logits.shape[1]], bootstrap=20)
    second = classification_metrics(logits[order], labels[order], NAMES[: logits.shape[1]], bootstrap=20)
    for name in ("accuracy", "confusion", "recall", "accuracy_interval", "mean_recall_interval"):
        assert first[name] == second[name]
    for name in ("nll", "ece"):
        assert first[name] == pytest.approx(second[name], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("batch", [7, 500])
def test_batch_size_does_not_show(batch):
    """Padded batches, masked and gathered as evaluation does it, give exactly the scores of one pass."""
    logits, labels = random_predictions(213)
    gathered = []
    for start in range(0, len(labels), batch):
        taken = np.arange(start, start + batch)
        mask = taken < len(labels)
        padded = logits[np.where(mask, taken, 0)]  # padding repeats a real example: it must not be counted
        gathered.append(padded[mask])
    scores = classification_metrics(np.concatenate(gathered), labels, NAMES[:7])
    assert scores == classification_metrics(logits, labels, NAMES[:7])
    assert scores["num_examples"] == 213


def test_result_is_plain_json():
    logits, labels = random_predictions(50)
    labels[labels == 2] = 3  # a class without examples
    scores = classification_metrics(logits, labels, NAMES[:7], votes=np.eye(7)[labels])
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_class_without_examples_is_left_out_and_said():
    logits = np.array([[4, 0, 0], [0, 0, 4], [4, 0, 0], [4, 0, 0]], np.float32)
    scores = classification_metrics(logits, np.array([0, 0, 2, 2]), NAMES[:3])
    assert scores["recall"] == [0.5, None, 0.0]
    assert scores["precision"] == [pytest.approx(1 / 3), None, 0.0]
    assert scores["f1"] == [pytest.approx(0.4), None, 0.0]
    assert scores["mean_recall"] == 0.25
    assert scores["macro_f1"] == pytest.approx(0.2)
    assert scores["classes_without_examples"] == ["happiness"]
    assert never_recognized(scores).startswith("No example of surprise is recognized")
    assert not never_recognized(scores | {"recall": [0.5, None, 0.1]})


def test_which_parts_of_compound_classes_are_right():
    classes = ("neutral", "sad", "sadly angry", "angrily sad", "awed")
    logits = 9 * np.eye(5)[[0, 1, 2, 3, 1, 2, 4, 0]]
    labels = np.array([0, 1, 3, 2, 2, 1, 2, 4])  # the order of the parts does not matter
    parts = classification_metrics(logits, labels, classes, bootstrap=0)["parts"]
    assert (parts["all_right"], parts["one_right"]) == (4 / 8, 5 / 7)
    assert (parts["recall"]["sadness"], parts["precision"]["sadness"]) == (5 / 6, 5 / 5)
    assert (parts["recall"]["anger"], parts["precision"]["anger"]) == (2 / 4, 2 / 3)
    assert (parts["recall"]["fear"], parts["precision"]["fear"]) == (0 / 1, 0 / 1)
    assert (parts["recall"]["happiness"], parts["precision"]["happiness"]) == (None, None)
    assert "parts" not in classification_metrics(logits[:, :2], labels * 0, classes[:2], bootstrap=0)


def test_calibration_by_hand():
    """Four examples at 0.90 (three right), two at 0.65 (one right), one at 0.6, a bin's edge (wrong)."""
    confidence = np.array([0.90, 0.90, 0.90, 0.90, 0.65, 0.65, 0.60])
    correct = np.array([1, 1, 1, 0, 1, 0, 0], bool)
    logits = np.log(np.stack([confidence, 1 - confidence], -1))
    scores = classification_metrics(logits, np.where(correct, 0, 1), NAMES[:2], bootstrap=0)
    assert scores["ece"] == pytest.approx((4 * 0.15 + 2 * 0.15 + 1 * 0.60) / 7)
    bins = scores["reliability"]
    assert np.flatnonzero(bins["count"]).tolist() == [8, 9, 13]  # (8/15, 9/15], (9/15, 10/15], (13/15, 14/15]
    assert bins["accuracy"][13] == pytest.approx(0.75)
    assert bins["confidence"][9] == pytest.approx(0.65)
    assert bins["accuracy"][0] is None


def test_confidence_of_one_falls_into_the_last_bin():
    scores = classification_metrics(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0]), NAMES[:2], bootstrap=0)
    assert scores["reliability"]["count"][-1] == 2
    assert scores["ece"] == 0.5


def test_measures_to_votes_by_hand():
    predicted = np.array([[0.5, 0.25, 0.25], [0.2, 0.7, 0.1]])
    votes = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]], np.float32)
    scores = classification_metrics(np.log(predicted), np.array([0, 1]), NAMES[:3], votes=votes)
    by_hand = (0.5 * math.log(0.5 / 0.5) + 0.5 * math.log(0.5 / 0.25) + math.log(1 / 0.7)) / 2
    assert scores["kl_to_votes"] == pytest.approx(by_hand)
    by_hand = {
        "chebyshev": (0.25 + 0.3) / 2,
        "clark": (math.sqrt((0.25 / 0.75) ** 2 + 1) + math.sqrt(1 + (0.3 / 1.7) ** 2 + 1)) / 2,
        "canberra": (0.25 / 0.75 + 1 + 1 + 0.3 / 1.7 + 1) / 2,
        "cosine": (0.375 / math.sqrt(0.5 * 0.375) + 0.7 / math.sqrt(0.54)) / 2,
        "intersection": (0.75 + 0.7) / 2,
    }
    assert {name: scores[f"{name}_to_votes"] for name in by_hand} == pytest.approx(by_hand)
    assert "kl_to_votes" not in classification_metrics(np.log(predicted), np.array([0, 1]), NAMES[:3])
    gap = np.abs(predicted.max(axis=1) - votes[[0, 1], predicted.argmax(axis=1)]).mean()  # each in a bin of its own
    assert scores["ece_to_votes"] == pytest.approx(gap)


@settings(max_examples=25, deadline=None)
@given(predictions())
def test_kl_is_not_negative_and_zero_at_the_prediction(case):
    logits, labels = case
    own = np.exp(log_softmax(logits))
    names = NAMES[: logits.shape[1]]
    assert classification_metrics(logits, labels, names, votes=own, bootstrap=0)["kl_to_votes"] == pytest.approx(
        0, abs=1e-12
    )
    one_hot = np.eye(logits.shape[1], dtype=np.float32)[labels]
    scores = classification_metrics(logits, labels, names, votes=one_hot, bootstrap=0)
    assert scores["kl_to_votes"] == pytest.approx(scores["nll"], rel=1e-9)  # KL to a one-hot is the cross-entropy


@pytest.mark.parametrize("count", [30, 600])
def test_intervals_agree_with_brute_force_resampling(count):
    logits, labels = random_predictions(count, classes=4, seed=3)
    labels[:2] = 3
    predicted = logits.argmax(-1)
    rng = np.random.default_rng(1)
    resampled = []
    for _ in range(4000):
        taken = rng.integers(0, count, count)
        table = confusion_matrix(labels[taken], predicted[taken], 4)
        support = table.sum(1)
        recall = np.diag(table)[support > 0] / support[support > 0]
        resampled.append((np.trace(table) / count, recall.mean()))
    brute = np.percentile(resampled, [2.5, 97.5], axis=0).T
    spread = np.std(resampled, axis=0)
    ours = bootstrap_intervals(labels, predicted, 4, draws=4000)
    # Two Monte-Carlo estimates of one quantile, each with the standard error sqrt(p (1 - p) / draws) /
    # density(p), 0.04 sigma here.
    for row, name in enumerate(("accuracy_interval", "mean_recall_interval")):
        np.testing.assert_allclose(ours[name], brute[row], atol=0.2 * spread[row])


def test_intervals_hold_the_score_and_are_the_same_every_time():
    logits, labels = random_predictions(400)
    one = classification_metrics(logits, labels, NAMES[:7])
    assert one == classification_metrics(logits, labels, NAMES[:7])
    for name in ("accuracy", "mean_recall", "macro_f1"):
        low, high = one[f"{name}_interval"]
        assert low < one[name] < high
        assert high - low < 0.15
    assert "accuracy_interval" not in classification_metrics(logits, labels, NAMES[:7], bootstrap=0)


def test_extreme_logits_stay_finite():
    largest = float(np.finfo(np.float32).max)
    logits = np.array([[largest, -largest], [1e4, -1e4], [0.0, 0.0]], np.float32)
    scores = classification_metrics(logits, np.array([1, 0, 1]), NAMES[:2], votes=np.full((3, 2), 0.5))
    assert math.isfinite(scores["nll"])
    assert math.isfinite(scores["kl_to_votes"])
    exact = classification_metrics(np.array([[1000.0, 0.0]], np.float32), np.array([1]), NAMES[:2])
    assert exact["nll"] == 1000.0


def test_a_large_test_set_is_quick():
    """AffectNet's size: 300,000 examples with intervals must take under 3 s (measured: 0.2 s)."""
    logits, labels = random_predictions(300_000, classes=8)
    start = time.process_time()  # whatever else the machine is doing
    classification_metrics(logits, labels, NAMES, votes=np.eye(8)[labels])
    assert time.process_time() - start < 3.0


def test_the_threshold_keeps_the_risk_and_covers_most():
    """Confidences .9 .8 .8 .7 .6 of two classes; the second and the fifth are wrong."""
    confidence = np.array([0.9, 0.8, 0.8, 0.7, 0.6])
    logits, labels = np.log(np.stack([confidence, 1 - confidence], axis=1)), np.array([0, 1, 0, 0, 1])
    # Wrong from each confidence on: 0/1, 1/3, 1/4, 2/5.
    assert confidence_threshold(logits, labels, 0.25) == pytest.approx(0.7)
    assert confidence_threshold(logits, labels, 0.3) == pytest.approx(0.7)
    assert confidence_threshold(logits, labels, 0.2) == pytest.approx(0.9)
    assert confidence_threshold(logits, labels, 0.4) == pytest.approx(0.6)
    assert confidence_threshold(logits, 1 - labels, 0.2) is None
    kept = confidence_threshold(logits, labels, 0.25)
    assert risk_and_coverage(logits, labels, kept) == {"risk": 0.25, "coverage": 0.8}


def test_concordance_and_error_of_valence_and_arousal_by_hand():
    truth = np.array([[0.0, -0.5], [0.5, 0.0], [np.nan, np.nan], [1.0, 0.5]])
    predicted = np.array([[0.0, 0.5], [0.5, 0.0], [0.9, 0.9], [0.5, -0.5]], np.float32)
    scores = affect_scores(predicted, truth)
    assert scores["affect_examples"] == 3
    # Valence: means 1/3 and 1/2, variances 1/18 and 1/6, covariance 1/12: (1/6) / (1/18 + 1/6 + 1/36).
    assert scores["valence_ccc"] == pytest.approx(2 / 3)
    assert scores["valence_rmse"] == pytest.approx((0.25 / 3) ** 0.5)
    assert (scores["arousal_ccc"], scores["arousal_rmse"]) == pytest.approx((-1, (2 / 3) ** 0.5))
    nothing = affect_scores(predicted, np.full((4, 2), np.nan))
    assert nothing["affect_examples"] == 0
    assert nothing["valence_ccc"] is nothing["arousal_rmse"] is None
