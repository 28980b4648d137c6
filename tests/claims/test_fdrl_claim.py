"""FDRL's claim: its measures on latent features whose worth is known, and its arms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from built import build_model

from experiments.claims import fdrl
from fer_jax.config.check import check_config

RNG = np.random.default_rng(0)
SUBJECT = np.repeat(np.arange(60), 10)
UNITS = (RNG.random((600, 3)) < 0.4) * RNG.uniform(0.3, 1, (600, 3))


def test_a_scalar_that_tells_an_action_unit_is_found():
    scalars = RNG.normal(size=(600, 4))
    assert fdrl.unit_auc(scalars, UNITS, SUBJECT).mean() == pytest.approx(0.5, abs=0.08)
    for feature, unit, sign in ((2, 0, 1), (0, 1, -1), (1, 2, 1)):
        scalars[:, feature] += 9 * sign * UNITS[:, unit]
    assert fdrl.unit_auc(scalars, UNITS, SUBJECT).mean() > 0.95


def test_alikeness_of_latent_features():
    a = RNG.normal(size=(600, 5))
    turned = 3 * a @ np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    assert fdrl.alikeness(np.stack([a, turned], axis=1)) == pytest.approx(1)
    assert fdrl.alikeness(RNG.normal(size=(600, 2, 5))) < 0.05


def test_nearest_centers_of_importances():
    label = RNG.integers(3, size=600)
    assert fdrl.nearest_center(np.eye(3)[label], label, SUBJECT).mean() == 1
    assert fdrl.nearest_center(RNG.normal(size=(600, 3)), label, SUBJECT).mean() == pytest.approx(1 / 3, abs=0.1)


def test_arms_are_valid_and_wide_has_as_many_parameters_as_fdrl():
    sizes = {}
    for name, make in fdrl.TRIAL.arms.items():
        config = make(3)
        check_config(config)
        model = build_model(config, "abcdefg")
        batch = {"image": jnp.zeros((2, 48, 48, 3)), "target": jnp.zeros((2, 7))}
        shapes = jax.eval_shape(lambda model=model, batch=batch: model.init(jax.random.key(0), batch, train=False))
        sizes[name] = sum(x.size for x in jax.tree.leaves(shapes["params"]))
    assert sizes["wide"] == pytest.approx(sizes["FDRL"], rel=1e-3)
    assert sizes["none"] < sizes["pieces"] < sizes["FDRL"] == sizes["FDRL, simplex"]
