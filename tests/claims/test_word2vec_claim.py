"""What the trial of Word2Vec FER's claim measures, and that its arms differ in what it is about only."""

import itertools

import numpy as np
import pytest

from experiments.claims import word2vec
from fer_jax import methods
from fer_jax.config.check import check_config
from fer_jax.errors import differences
from fer_jax.labels import EMOTIONS
from fer_jax.methods.word2vec import gram_matrix
from fer_jax.words.classes import class_vectors

CLASSES = EMOTIONS[:7]
G = gram_matrix(np.asarray(class_vectors("minilm", "seed", CLASSES).vectors))


def mistakes(weights):
    """A confusion matrix with 100 mistakes in each row, shared out by `weights` [7, 7]."""
    weights = weights * ~np.eye(7, dtype=bool)
    return np.round(100 * weights / weights.sum(axis=1, keepdims=True)) + 500 * np.eye(7)


def test_mistakes_between_like_words_are_small_and_close():
    near = word2vec.measures_of(mistakes(np.exp(10 * G)), CLASSES)
    even = word2vec.measures_of(mistakes(np.ones((7, 7))), CLASSES)
    far = word2vec.measures_of(mistakes(np.exp(-10 * G)), CLASSES)
    assert near["semantic_error"] < even["semantic_error"] - 0.05
    assert even["semantic_error"] == pytest.approx(1 - G[~np.eye(7, dtype=bool)].mean(), abs=0.005)
    assert far["semantic_error"] > even["semantic_error"] + 0.05
    assert near["closeness"] > 0.03
    assert even["closeness"] == pytest.approx(0.0, abs=0.005)
    assert far["closeness"] < -0.03


def test_answering_with_a_word_like_all_others_is_not_closeness():
    """Anger is nearest to all: whoever answers with it at random has a lower semantic error and knows nothing."""
    hub = np.tile(np.where(np.arange(7) == G.sum(0).argmax(), 60.0, 1.0), (7, 1))
    measured = word2vec.measures_of(mistakes(hub), CLASSES)
    even = word2vec.measures_of(mistakes(np.ones((7, 7))), CLASSES)
    assert measured["semantic_error"] < even["semantic_error"] - 0.05
    assert abs(measured["closeness"]) < 0.01


def test_no_mistakes():
    assert set(word2vec.measures_of(np.eye(7, dtype=int), CLASSES).values()) == {0.0}


def test_the_arms_differ_in_what_the_claim_is_about_only():
    configs = {name: make(3).to_dict() for name, make in word2vec.TRIAL.arms.items()}
    for make in word2vec.TRIAL.arms.values():
        check_config(make(3))
        assert make(3).seed == 3

    def changed(a, b):
        return {line.split(":")[0] for line in differences(configs[a], configs[b])}

    assert changed("A0 words", "A0 random") == changed("A0 words", "A0 whiten") == {"model.control"}
    assert changed("A3 words", "A3 random") == {"model.control"}
    assert changed("A0 words", "A3 words") == {"loss.options.kind", "model.learn_scale"}
    assert {name.split(".")[0] for name in changed("A0 words", "cross-entropy")} == {"loss", "method", "model"}
    for comparison in word2vec.TRIAL.comparisons:
        assert {comparison.ours, comparison.theirs} <= set(configs)


def test_random_vectors_are_drawn_anew_for_each_seed():
    """One draw for all seeds would be one control, however many networks were trained towards it."""
    drawn = []
    for seed in range(3):
        config = word2vec.TRIAL.arms["A3 random"](seed)
        drawn.append(methods.build_model(config, CLASSES, "float32").unit_vectors())
    for a, b in itertools.combinations(drawn, 2):
        assert np.abs(a - b).max() > 0.1


def test_the_picture_has_every_arm():
    values = {"semantic_error": [0.6, 0.7], "closeness": [0.0, 0.1], "accuracy": [0.5, 0.6]}
    figure = word2vec.picture({"arms": {name: values for name in word2vec.TRIAL.arms}})
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == list(word2vec.TRIAL.arms)
