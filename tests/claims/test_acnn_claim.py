"""ACNN's claim: its measures on gates whose worth is known, and its arms."""

import numpy as np
import pytest

from experiments.claims import acnn
from fer_jax.config.check import check_config


def hidden(n=4000):
    rng = np.random.default_rng(0)
    return np.where(rng.random((n, 24)) < 0.5, 0.0, rng.random((n, 24)))


def test_gates_that_know_what_is_covered():
    coverage, level = hidden(), np.linspace(0.4, 0.9, 24)
    alpha = np.concatenate([level * (1 - 0.5 * coverage), np.ones((4000, 1))], axis=1)  # the global gate is left out
    clean = np.broadcast_to(np.append(level, 1.0), alpha.shape)
    assert acnn.gate_auc(alpha, coverage).mean() == pytest.approx(1)
    expected = (0.5 * level * coverage)[coverage >= 0.7].mean()
    assert acnn.gate_drop(clean, alpha, coverage).mean() == pytest.approx(expected)


def test_gates_that_know_nothing_or_the_opposite():
    coverage, rng = hidden(), np.random.default_rng(1)
    clean, alpha = rng.random((4000, 24)), rng.random((4000, 24))
    assert acnn.gate_auc(alpha, coverage).mean() == pytest.approx(0.5, abs=0.02)
    assert abs(acnn.gate_drop(clean, alpha, coverage).mean()) < 0.02
    assert acnn.gate_auc(coverage, coverage).mean() == pytest.approx(0)


def test_how_much_of_a_patch_is_covered():
    masks = np.zeros((1, 48, 48))
    masks[0, :, 24:] = 1  # the right half: cells 6 to 11 of 12
    points = np.array([[(10, 24), (24, 24), (26, 24), (40, 24), (0, 0), (47, 24)]], float)
    # The first column of 3 cells is round(x / 4 - 1.5): 1, 5 (4.5, away from zero), 5, 9 (8.5), -2 and 10.
    found = acnn.patch_coverage(masks, points, stride=4, patch=3)
    np.testing.assert_allclose(found, [[0, 2 / 3, 2 / 3, 1, 0, 1]], atol=1e-6)  # of the last a third is outside


def test_the_arms_differ_in_the_gates_alone_and_a_patch_is_a_quarter_of_the_side():
    configs = {name: make(3) for name, make in acnn.TRIAL.arms.items()}
    for config in configs.values():
        check_config(config)
        assert config.data.occluded_copies
        assert config.data.label_smoothing == 0
    ours = configs["gates"]
    assert 4 * ours.model.patch * acnn.stride_of(ours.model.cut) == ours.data.image_size
    configs["no gates"].model.gates = True
    configs["gates, affine"].model.affine = False
    assert ours.to_dict() == configs["no gates"].to_dict() == configs["gates, affine"].to_dict()
