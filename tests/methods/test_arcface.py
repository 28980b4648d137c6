"""ArcFace: the margin by hand, without it a softmax of cosines, and the methods that may have it."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import methods
from fer_jax.config.check import check_config
from fer_jax.errors import UserError
from fer_jax.methods.method import Clock, Output
from fer_jax.methods.objective import load
from fer_jax.methods.strategies.arcface import with_margin

DEGREES = np.array([[10.0, 80.0, 120.0], [30.0, 60.0, 90.0], [170.0, 20.0, 0.0]])  # the angles of three faces
LABELS = np.array([0, 1, 0])


def loss(scale, margin):
    method = load("arcface").apply(methods.load("baseline"), scale=scale, margin=margin)
    logits = jnp.asarray(scale * np.cos(np.radians(DEGREES)), jnp.float32)
    batch = {"target": jax.nn.one_hot(LABELS, 3)}
    return np.asarray(method.loss((Output(logits, {}),), batch, Clock(0, 0.0))["cross_entropy"])


def softmax_loss(logits):
    return np.log(np.exp(logits).sum(-1)) - logits[np.arange(3), LABELS]


def test_the_margin_is_added_to_the_angle_of_the_true_class():
    logits = 8 * np.cos(np.radians(DEGREES))
    logits[0, 0], logits[1, 1] = 8 * np.cos(np.radians(10) + 0.5), 8 * np.cos(np.radians(60) + 0.5)
    logits[2, 0] = 8 * (np.cos(np.radians(170)) - 0.5 * np.sin(0.5))  # 170 degrees and 0.5 are beyond 180
    np.testing.assert_allclose(loss(8.0, 0.5), softmax_loss(logits), rtol=1e-5)


def test_without_a_margin_it_is_the_softmax_of_cosines():
    np.testing.assert_allclose(loss(1.0, 0.0), softmax_loss(np.cos(np.radians(DEGREES))), rtol=1e-6)


def test_logits_are_scaled_cosines_and_slopes_finite_where_an_angle_is_0():
    model = load("arcface").apply(methods.load("baseline"), scale=16.0).model(num_classes=5, depth=6, width=8)
    batch = {"image": jax.random.normal(jax.random.key(0), (2, 16, 16, 3))}
    variables = model.init(jax.random.key(1), batch, train=False)
    assert set(variables["params"]) == {"trunk", "cosines"}
    logits, aux = model.apply(variables, batch, train=False)
    f, w = np.asarray(aux["features"]), np.asarray(variables["params"]["cosines"]["kernel"])
    cosines = f @ w / np.linalg.norm(f, axis=1, keepdims=True) / np.linalg.norm(w, axis=0)
    np.testing.assert_allclose(logits, 16 * cosines, rtol=1e-4, atol=1e-5)
    slopes = jax.grad(lambda c: with_margin(c, jnp.ones((1, 3)), 0.5).sum())(jnp.array([[1.0, -1.0, 0.0]]))
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize(
    ("method", "fields", "says"),
    [
        ("baseline", {"strategy.arcface.margin": 2.0}, "give radians"),
        ("baseline", {"strategy.arcface.scale": 0.0}, "give a number above 0"),
        ("baseline", {"objective": "arcface+scn", "train.epochs": 20.0}, "which scn changes; leave one"),
        ("rul", {}, "which rul is not: give baseline"),
        ("compound", {}, "which compound is not"),
    ],
)
def test_what_does_not_fit_is_refused(method, fields, says):
    config = importlib.import_module(f"experiments.{method}").get_config("smoke")
    config.objective = "arcface"
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=says):
        check_config(config)
