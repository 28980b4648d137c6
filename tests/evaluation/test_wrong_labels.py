"""What is said of wrong training labels, by hand."""

import dataclasses

import numpy as np
import pytest

from fer_jax.data.sources.source import load
from fer_jax.evaluation.wrong_labels import auroc, wrong_labels


def test_auroc_is_the_share_of_pairs_in_order():
    sign, wrong = np.array([0.1, 0.4, 0.4, 0.9, 0.3]), np.array([False, True, False, True, False])
    assert auroc(sign, wrong) == pytest.approx((3 + 2.5) / 6)
    assert auroc(sign, np.zeros(5, bool)) is None


def test_memorized_recovered_and_doubted_labels(tiny):
    source = load(tiny().data, "test", training=False).select(np.arange(4))
    truth = np.array([0, 1, 2, 3], np.int32)
    label = np.array([0, 1, 4, 5], np.int32)  # the last two are wrong
    votes = np.zeros((4, len(source.classes)), np.float32)
    votes[[0, 1, 2, 3], truth] = [0.9, 0.5, 0.8, 0.6]
    arrays = {**source.arrays, "label": label, "clean_label": truth, "vote_target": votes}
    logits = np.zeros((4, len(source.classes)), np.float32)
    logits[[0, 1, 2, 3], [0, 0, 4, 3]] = 6.0, 4.0, 5.0, 5.0  # right, doubted, memorized, recovered
    found = wrong_labels({"logits": logits}, dataclasses.replace(source, arrays=arrays))
    assert (found["memorized"], found["recovered"]) == (0.5, 0.5)
    assert found["auroc"] == {"loss": 0.75, "margin": 0.75}  # the memorized label is less doubtful than a right one
    assert found["auroc_agreed"]["loss"] == found["auroc_disputed"]["loss"] == 1
    assert found["wrong_share"]["loss"][:4] == [0, 1, 0, 1]
