"""Geometry of stills: what the features do not depend on, and JAX's classifiers against scikit-learn's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.ensemble import AdaBoostClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from fer_jax.config.check import check_config
from fer_jax.config.fields import assign
from fer_jax.data.sources.folds import example_folds, subject_folds
from fer_jax.data.sources.points import MIRROR
from fer_jax.errors import UserError
from fer_jax.evaluation.results import headline
from fer_jax.methods import geometry, learners
from fer_jax.methods.geometry import ANGLES, FIRST, RATIOS, SECOND, describe, symmetric_mean
from fer_jax.methods.method import Config

ORDER = np.array(MIRROR["face68"])
CLASSES = 4
MODEL = geometry.Model(num_classes=CLASSES, support=240, rounds=10, components=20)


def face():
    """An upright face [68, 2]: jaw, brows, nose, eyes and mouth in their places, in pixels."""
    half = np.array([
        *[(-50 + k**2 / 9, 5 + 9 * k - k**2 / 4) for k in range(8)],  # the jaw, from the ear down
        *[(-42 + 7 * k, -26 - 3 * np.sin(k / 1.3)) for k in range(5)],  # a brow
        (-9, 28), (-5, 31), (-34, -12), (-28, -16), (-20, -16), (-14, -11), (-20, -9), (-28, -9),  # nose, an eye
        (-22, 52), (-15, 47), (-6, 45), (-6, 60), (-14, 58), (-18, 52), (-6, 50), (-6, 55),  # the mouth
    ])  # fmt: skip
    places = [*range(8), *range(17, 22), 31, 32, *range(36, 42), 48, 49, 50, 58, 59, 60, 61, 67]
    shape = np.zeros((68, 2))
    shape[places] = half
    shape[ORDER[places]] = half * [-1, 1]
    middle = {8: 75, 27: -12, 28: 2, 29: 14, 30: 24, 33: 32, 51: 46, 57: 61, 62: 50, 66: 56}
    for place, y in middle.items():
        shape[place] = (0, y)
    return shape + 100


def faces(count, seed=0):
    """Faces [N, 68, 2] float32 of classes that differ in mouth and brows, and the classes [N]."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, count)
    shape = np.repeat(face()[None], count, axis=0) + rng.normal(0, 1.5, (count, 68, 2))
    shape[:, (48, 54, 60, 64), 1] += (label == 1)[:, None] * -6.0
    shape[:, 55:60, 1] += (label == 2)[:, None] * 8.0
    shape[:, 17:27, 1] += (label == 3)[:, None] * 5.0
    return shape.astype(np.float32), label


POINTS, LABEL = faces(240)
UNSEEN, TRUTH = faces(120, seed=1)
MEAN = symmetric_mean(POINTS)


def fitted(label=LABEL, points=POINTS, **fields):
    """A model and its variables, fitted."""
    model = dataclasses.replace(MODEL, **fields)
    params = {}
    for path, values in geometry.fit(model, points.reshape(len(points), -1), np.eye(CLASSES)[label], 0).items():
        *groups, name = path.split("/")
        here = params
        for group in groups:
            here = here.setdefault(group, {})
        here[name] = jnp.asarray(values, jnp.float32)
    return model, {"params": params}


def logits_of(model, variables, points):
    return np.asarray(jax.jit(lambda p: model.apply(variables, {"points": p}, train=False)[0])(points))


def moved(points, degrees, scale, shift):
    turn = np.radians(degrees)
    return (points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) * scale + shift).astype(
        "f"
    )


def test_features_do_not_depend_on_place_size_and_roll():
    ours = describe(POINTS[:8], MEAN)
    for change in ((0, 1, (40, -9)), (0, 2.5, 0), (35, 1, 0), (-140, 0.4, (7, 3))):
        np.testing.assert_allclose(describe(moved(POINTS[:8], *change), MEAN), ours, atol=1e-5)
    assert np.ptp(np.asarray(ours), axis=0).max() > 0.1  # but on the face


def mirror_of_pairs():
    """The pair of landmarks that each one becomes on a mirrored face."""
    number = {frozenset(pair): n for n, pair in enumerate(zip(FIRST.tolist(), SECOND.tolist(), strict=True))}
    return [number[frozenset(ORDER[[i, j]].tolist())] for i, j in zip(FIRST, SECOND, strict=True)]


def mirror_of_features():
    """(index, sign) of the feature that each one becomes on a mirrored face."""
    pairs = mirror_of_pairs()

    def unordered(rows):
        return [(frozenset((r[0], r[1])), frozenset((r[2], r[3]))) for r in rows.tolist()]

    ratios = [unordered(RATIOS).index(row) for row in unordered(ORDER[RATIOS])]
    at = [(frozenset((a, c)), b) for a, b, c in ANGLES.tolist()]
    angles = [at.index((frozenset((a, c)), b)) for a, b, c in ORDER[ANGLES].tolist()]
    coordinates = np.stack([2 * ORDER, 2 * ORDER + 1], axis=1).ravel()
    blocks = [coordinates, np.array(pairs), np.array(ratios), np.array(angles)]
    starts = np.cumsum([0, *map(len, blocks[:-1])])
    sign = np.ones(geometry.FEATURES)
    sign[0:136:2] = -1
    return np.concatenate([block + start for block, start in zip(blocks, starts, strict=True)]), sign


def test_a_mirrored_face_has_mirrored_features():
    index, sign = mirror_of_features()
    np.testing.assert_allclose(
        describe(mirrored(POINTS[:8]), MEAN), np.asarray(describe(POINTS[:8], MEAN))[:, index] * sign, atol=1e-5
    )


def mirrored(points):
    return (points * [-1, 1] + [200, 0]).astype("f")[..., ORDER, :]


def test_a_mirrored_face_is_classified_alike():
    """Where the training faces are mirrored too, but for faces between two classes."""
    model, variables = fitted(np.tile(LABEL, 2), np.concatenate([POINTS, mirrored(POINTS)]), support=480)
    ours, theirs = (logits_of(model, variables, points).argmax(axis=1) for points in (UNSEEN, mirrored(UNSEEN)))
    assert (ours == theirs).mean() > 0.98


@pytest.mark.parametrize("learner", learners.LEARNERS)
@pytest.mark.parametrize("absent", [None, 1])
def test_jax_predicts_what_scikit_learn_predicts(learner, absent):
    """Also where a class, or all but two, have no examples."""
    label = LABEL if absent is None else np.where(LABEL < 2, 0, 3)
    model, variables = fitted(label, learner=learner)
    p = jax.tree.map(np.asarray, variables["params"])
    x, unseen = (
        ((np.asarray(describe(q, p["mean_shape"])) - p["center"]) * p["scale"]) @ p["axes"] for q in (POINTS, UNSEEN)
    )
    theirs = {
        "svc": SVC(C=10.0, class_weight="balanced", break_ties=True),
        "boosting": AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=10, random_state=0),
        "logistic": LogisticRegression(C=10.0, max_iter=500),
    }[learner].fit(x, label)
    logits = logits_of(model, variables, UNSEEN)
    np.testing.assert_array_equal(logits.argmax(axis=1), theirs.predict(unseen))
    if learner == "svc" and absent is None:
        np.testing.assert_allclose(logits, theirs.decision_function(unseen), atol=1e-3)
    if learner == "logistic":
        np.testing.assert_allclose(jax.nn.softmax(logits)[:, theirs.classes_], theirs.predict_proba(unseen), atol=1e-4)
    if absent is None:
        assert (logits.argmax(axis=1) == TRUTH).mean() > 0.9


def test_shuffled_labels_give_chance():
    shuffled = np.random.default_rng(0).permutation(LABEL)
    for learner in learners.LEARNERS:
        right = logits_of(*fitted(shuffled, learner=learner), UNSEEN).argmax(axis=1) == TRUTH
        assert abs(right.mean() - 1 / CLASSES) < 0.15  # four standard deviations of 120 guesses


def test_leaked_subjects_are_visible():
    """People who share no way to show an expression: a division of pictures scores high, one of people is at chance."""
    rng = np.random.default_rng(0)
    person, label = np.repeat(np.arange(10), 16), np.tile(np.arange(CLASSES), 40)
    habits = rng.normal(0, 4, (10, CLASSES, 68, 2))[person, label]
    points = (face() + habits + rng.normal(0, 1.5, habits.shape)).astype("f")

    def accuracy(fold):
        model, variables = fitted(label[fold > 0], points[fold > 0])
        return (logits_of(model, variables, points[fold == 0]).argmax(axis=1) == label[fold == 0]).mean()

    by_picture, by_person = accuracy(example_folds(label, 5)), accuracy(subject_folds(person, 5))
    assert by_picture > 0.8
    assert by_person < by_picture - 0.3


def test_a_face_without_landmarks_is_not_classified(capsys):
    some = POINTS.copy()
    some[:39] = np.nan
    some[39, 60] = some[39, 64]  # the mouth has no width
    model, variables = fitted(points=some)
    assert "landmarks of 1 of 240 training faces coincide" in capsys.readouterr().out
    logits = logits_of(model, variables, some)
    assert not logits[:40].any()
    assert (np.ptp(logits[40:], axis=1) > 0).all()
    found = geometry.score(model, logits, LABEL)
    assert found["coverage"] == pytest.approx(200 / 240)
    results = dict.fromkeys(("dataset", "split"), "a") | {"num_examples": 240, "mean_recall": 0.5, "macro_f1": 0.5}
    assert "; coverage 0.8333" in headline(results | {"accuracy": 0.5} | found)
    assert found["accuracy_found"] == (logits[40:].argmax(axis=1) == LABEL[40:]).mean()
    with pytest.raises(UserError, match="no training face has landmarks"):
        fitted(points=np.full_like(POINTS, np.nan))


@pytest.mark.parametrize("learner", learners.LEARNERS)
def test_faces_that_are_all_alike_are_refused(learner):
    with pytest.raises(UserError, match="are identical"):
        fitted(points=np.repeat(POINTS[:1], len(POINTS), axis=0), learner=learner)


def test_trees_that_tell_nothing_are_refused():
    model = dataclasses.replace(MODEL, learner="boosting")
    with pytest.raises(UserError, match="no tree .* better than chance"):
        learners.fit(model, np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 1, 0, 1]), 0)


def test_more_examples_than_support_vectors_are_sampled(capsys):
    model, variables = fitted(support=100)
    assert "trained on 100 of 240" in capsys.readouterr().out
    assert (logits_of(model, variables, UNSEEN).argmax(axis=1) == TRUTH).mean() > 0.8


def test_a_rare_class_is_among_the_sampled_examples():
    rare = np.where(np.arange(len(POINTS)) == 7, 3, LABEL % 3)
    assert logits_of(*fitted(rare, support=4), POINTS[7:8]).argmax() == 3
    with pytest.raises(UserError, match=r"config\.model\.support=3: there are 4 classes"):
        fitted(support=3)


@pytest.mark.parametrize(
    ("path", "value"),
    [("objective", "mixup"), ("data.class_weights", True), ("optimizer.name", "sgd"), ("init_from", "run")],
)
def test_what_fitting_does_not_use_is_refused(path, value):
    config: Config = __import__("experiments.geometry", fromlist=["_"]).get_config("smoke")
    check_config(config)
    assign(config, path, value)
    with pytest.raises(UserError, match=rf"config\.{path}=.* has no effect: geometry is fitted"):
        check_config(config)


def test_what_is_missing_is_said(monkeypatch):
    config: Config = __import__("experiments.geometry", fromlist=["_"]).get_config("smoke")
    config.model.variance = 1.5
    with pytest.raises(UserError, match=r"config\.model\.variance=1\.5.*at most 1"):
        geometry.check(config)
    config.model.variance, config.model.cost = 1.0, 0.0
    with pytest.raises(UserError, match=r"config\.model\.cost=0\.0: give a number above 0$"):
        geometry.check(config)
    config.data.points = ""
    with pytest.raises(UserError, match=r"config\.data\.points.*face68"):
        geometry.check(config)
    monkeypatch.setitem(__import__("sys").modules, "sklearn.svm", None)
    with pytest.raises(UserError, match=r"fer_jax\[geometry\]"):
        fitted()
