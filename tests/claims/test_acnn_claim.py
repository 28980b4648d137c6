"""ACNN's claim: its measures on gates whose worth is known, and its arms."""

import numpy as np
import pytest

from experiments.claims import acnn
from fer_jax.config.check import check_config
from fer_jax.methods.acnn import stride_of


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


def test_the_arms_differ_in_the_gates_alone_and_a_patch_is_a_quarter_of_the_side():
    configs = {name: make(3) for name, make in acnn.TRIAL.arms.items()}
    for config in configs.values():
        check_config(config)
        assert config.data.occluded_copies
        assert config.data.label_smoothing == 0
    ours = configs["gates"]
    assert 4 * ours.model.patch * stride_of(ours.model.cut) == ours.data.image_size
    configs["no gates"].model.gates = True
    configs["gates, affine"].model.affine = False
    assert configs["told"].data.occlusion_masks
    configs["told"].data.occlusion_masks, configs["told"].model.told, configs["told"].model.gates = False, False, True
    for name in ("no gates", "gates, affine", "told"):
        assert ours.to_dict() == configs[name].to_dict()
