"""ACNN's claim: its measures on gates whose worth is known, its arms, and that the trial runs."""

import numpy as np
import pytest

from experiments.claims import acnn
from experiments.claims.trial import main
from fer_jax.config.check import check_config


def hidden(n=400):
    rng = np.random.default_rng(0)
    return np.where(rng.random((n, 24)) < 0.5, 0.0, rng.random((n, 24)))


def test_gates_that_know_what_is_covered():
    coverage, level = hidden(), np.linspace(0.4, 0.9, 24)
    clean = np.broadcast_to(level, coverage.shape)
    measured = acnn.gates_against_coverage(clean, level * (1 - 0.5 * coverage), coverage)
    assert measured["spearman"] == pytest.approx(1)
    assert measured["auc"] == 1
    assert measured["dropped"] == 1
    expected = (0.5 * level * coverage)[coverage >= 0.7].mean()
    assert measured["alpha_drop"] == pytest.approx(expected)
    assert measured["alpha_drop_elsewhere"] == 0


def test_gates_that_know_nothing_or_the_opposite():
    coverage = hidden(4000)
    rng = np.random.default_rng(1)
    clean, alpha = rng.random((4000, 25)), rng.random((4000, 25))  # the global gate is left out
    measured = acnn.gates_against_coverage(clean, alpha, coverage)
    assert abs(measured["spearman"]) < 0.02
    assert measured["auc"] == pytest.approx(0.5, abs=0.02)
    assert abs(measured["alpha_drop"]) < 0.02
    opposite = acnn.gates_against_coverage(np.zeros((4000, 24)), coverage, coverage)
    assert opposite["spearman"] == pytest.approx(-1)
    assert opposite["auc"] == 0


def test_how_much_of_a_patch_is_covered():
    masks = np.zeros((1, 48, 48))
    masks[0, :, 24:] = 1  # the right half: cells 6 to 11 of 12
    points = np.array([[(10, 24), (24, 24), (26, 24), (40, 24), (0, 0), (47, 24)]], float)
    # The first column of 3 cells is round(x / 4 - 1.5): 1, 5 (4.5, away from zero), 5, 9 (8.5), -2 and 10.
    found = acnn.patch_coverage(masks, points, stride=4, patch=3)
    np.testing.assert_allclose(found, [[0, 2 / 3, 2 / 3, 1, 0, 1]], atol=1e-6)  # of the last a third is outside


def test_the_arms_differ_in_the_gates_alone():
    ours, theirs = (arm(3) for arm in acnn.TRIAL.arms.values())
    check_config(ours)
    check_config(theirs)
    assert ours.data.occluded_copies
    assert theirs.data.occluded_copies
    assert ours.seed == 3
    theirs.model.gates = True
    assert ours.to_dict() == theirs.to_dict()


@pytest.mark.slow
def test_the_trial_runs(tmp_path, data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    folders = ["--workdir", str(tmp_path / "runs"), "--out", str(tmp_path)]
    assert main(acnn.TRIAL, ["--seeds=2", "--max_steps=2", *folders]) == 0
    assert (tmp_path / "results" / "claims" / "acnn.json").exists()
    assert (tmp_path / "docs" / "claims" / "acnn.png").exists()
