"""What the trial of Word2Vec FER's claim measures, and that its arms differ in what it is about only."""

import itertools
import types
from typing import Any

import numpy as np
import pytest
from built import build_model

from experiments.claims import word2vec
from fer_jax.config.check import check_config
from fer_jax.errors import differences
from fer_jax.labels import EMOTIONS

CLASSES = EMOTIONS[:7]
LABEL = np.repeat(np.arange(7), 10)


def costs(answers):
    model: Any = types.SimpleNamespace(logits=lambda test: np.eye(7)[answers])
    test: Any = types.SimpleNamespace(arrays={"label": LABEL}, classes=CLASSES)
    return {
        name: float(np.mean(values))
        for name, values in word2vec.measure("cross-entropy", model, test, "minilm").items()
    }


def test_right_answers_cost_nothing_and_near_words_less_than_far_ones():
    assert costs(LABEL) == {"cost": pytest.approx(0), "affect cost": 0}
    gram = word2vec.gram_of("minilm", CLASSES) - 9 * np.eye(7)
    near, far = (
        costs(order[LABEL])["cost"] for order in (gram.argmax(axis=1), (-gram - 18 * np.eye(7)).argmax(axis=1))
    )
    assert near == pytest.approx((1 - gram.max(axis=1)).mean())
    assert near < far
    fear, anger, happiness = (CLASSES.index(name) for name in ("fear", "anger", "happiness"))
    distance = word2vec.affect_distances(CLASSES)
    assert distance[fear, anger] == pytest.approx(np.hypot(0.13, 0.01))
    assert distance[fear, anger] < distance[fear, happiness]


def test_the_arms_differ_in_what_the_claim_is_about_only():
    configs = {name: make(3) for name, make in word2vec.TRIAL.arms.items()}
    for config in configs.values():
        check_config(config)

    def changed(a, b):
        return {line.split(":")[0] for line in differences(configs[a].to_dict(), configs[b].to_dict())}

    assert changed("A0 words", "A0 random") == changed("A3 words", "A3 random") == {"model.control"}
    assert changed("A0 words", "A3 words") == {"loss.options.kind", "model.learn_scale"}
    assert changed("A1 words", "A3 words") == {"loss.options.kind"}
    assert {name.split(".")[0] for name in changed("A0 words", "cross-entropy")} == {"loss", "method", "model"}


def test_random_vectors_are_drawn_anew_for_each_seed():
    """One draw for all seeds would be one control, however many networks were trained towards it."""
    drawn = []
    for seed in range(3):
        config = word2vec.TRIAL.arms["A3 random"](seed)
        drawn.append(build_model(config, CLASSES).unit_vectors())
    for a, b in itertools.combinations(drawn, 2):
        assert np.abs(a - b).max() > 0.1
