"""PSR's and PDLS's claims: what their arms share, and their measures on known predictions."""

import numpy as np
import pytest

from experiments.claims import pdls, psr
from experiments.claims.trial import PROBE, complete
from fer_jax.config.check import check_config
from fer_jax.errors import differences


def changed(trial, ours):
    """By arm, the fields in which it differs from `ours`."""
    configs = {name: make(3) for name, make in trial.arms.items()}
    for config in configs.values():
        check_config(config)
    wanted = configs[ours].to_dict()
    return {
        name: {line.split(":")[0] for line in differences(config.to_dict(), wanted)} for name, config in configs.items()
    }


def test_arms_differ_in_what_the_claim_is_about_and_in_nothing_else():
    slowly = {"optimizer.groups"}  # of the super-resolution that only PSR has
    assert changed(psr.TRIAL, "PSR") == {
        "PSR": set(),
        "bicubic pyramid": {"model.upsampler", *slowly},
        "single": {"model.multiples", "model.upsampler", *slowly},
        "single, equal compute": {"model.multiples", "model.upsampler", "model.width", *slowly},
        "single, small faces": {"model.multiples", "model.upsampler", "augmentation.train", *slowly},
    }
    start, ours = psr.super_resolution(3), psr.TRIAL.arms["PSR"](3)
    check_config(start)
    assert (start.model.blocks, start.model.width) == (ours.model.sr_blocks, ours.model.sr_width)
    assert start.data.image_size == ours.data.image_size
    assert changed(pdls.TRIAL, "PDLS") == {
        "PDLS": set(),
        "label smoothing": {"data.smoothing_prior"},
        "no smoothing": {"data.smoothing_prior", "data.label_smoothing"},
    }


def test_learning_rates_of_pdls_are_not_chosen_on_the_faces_of_its_test():
    probe, seed = (complete(pdls.TRIAL, pdls.TRIAL.arms["PDLS"](s), s) for s in (PROBE, 3))
    check_config(probe)
    assert (probe.data.validation_split, probe.data.test_split, probe.selection.rule) == ("", "public_test", "last")
    assert probe.data.holdout_fraction == 0
    assert (seed.data.validation_split, seed.data.test_split) == ("public_test", "private_test")
    assert (probe.data.examples_seed, seed.data.examples_seed) == (PROBE, 3), "each trains on faces of its own"


def test_divergence_from_votes():
    votes = np.array([[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]])
    logits = np.log(np.array([[0.25, 0.75], [0.8, 0.2], [0.5, 0.5]]))
    wanted = [0.5 * np.log(2) + 0.5 * np.log(2 / 3), np.log(1.25), 0.0]
    np.testing.assert_allclose(pdls.divergence(logits, votes), wanted, atol=1e-9)


def test_the_share_kept_of_the_accuracy_above_chance():
    """Of four classes: 80 % at full size, 50 % at 12 px, chance at 8 px."""
    right = {percent: (np.arange(20) < percent / 5).astype(float) for percent in (80, 50, 25)}
    found = psr.kept(right[80], {12: right[50], 8: right[25]}, 0.25)
    assert found["kept at 12 px"] == pytest.approx(0.25 / 0.55)
    assert found["kept at 8 px"] == pytest.approx(0)
    assert np.mean(found["kept"]) == pytest.approx(0.125 / 0.55)
