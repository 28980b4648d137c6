"""The algorithms of label distribution learning on features from which the distributions follow."""

import numpy as np
import pytest
from scipy.special import softmax

from experiments.claims import ldl

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 4))
D = softmax(X @ RNG.normal(size=(4, 3)) + np.array([0.5, 0.0, -0.5]), axis=1)
LABELS = D.argmax(axis=1)


def test_maximum_entropy_finds_the_model_that_made_the_distributions():
    p = ldl.maximum_entropy(X[:300], D[:300], X[300:], penalty=1e-8)
    np.testing.assert_allclose(p, D[300:], atol=5e-3)


def test_neighbors_are_averaged():
    p = ldl.nearest_neighbors(X[:300], D[:300], X[300:302], k=3)
    near = np.argsort(np.linalg.norm(X[300] - X[:300], axis=1))[:3]
    np.testing.assert_allclose(p[0], D[near].mean(axis=0))


@pytest.mark.parametrize("title", ["maximum entropy", "AA-kNN", "AA-BP"])
def test_each_algorithm_beats_the_mean_distribution_in_every_measure(title):
    found, least = (
        ldl.scores(ldl.ALGORITHMS[name](X[:300], D[:300], X[300:]), D[300:], LABELS[300:])
        for name in (title, "mean distribution")
    )
    for name, value in found.items():
        better = value > least[name] if name.startswith(("accuracy", "cosine", "inter")) else value < least[name]
        assert better, name
