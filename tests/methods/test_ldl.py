"""Label distribution learning: the loss is the divergence from the votes, its gradient p - d; what has no votes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import methods
from fer_jax.errors import UserError
from fer_jax.methods.method import Clock, Output
from fer_jax.methods.objective import load

CLOCK = Clock(jnp.int32(0), jnp.float32(0.0))
VOTES = jnp.array([[0.6, 0.4, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])


def test_the_loss_is_the_divergence_from_the_votes():
    method: Any = load("ldl").apply(methods.load("baseline"))
    batch = method.targets(None, {"target": jnp.eye(3), "vote_target": VOTES}, CLOCK)
    d = np.array([[0.6, 0.4, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], np.float32)  # nobody voted on the last one
    np.testing.assert_array_equal(batch["target"], d)
    logits = jax.random.normal(jax.random.key(0), (3, 3))

    def total(logits):
        return sum(method.loss((Output(logits, {}),), batch, CLOCK).values())

    p = jax.nn.softmax(logits)
    divergence = [
        sum(b * np.log(b / a) for a, b in zip(*rows, strict=True) if b > 0) for rows in zip(p, d, strict=True)
    ]
    np.testing.assert_allclose(total(logits), divergence, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda z: jnp.sum(total(z)))(logits), p - d, atol=1e-6)
    np.testing.assert_allclose(total(jnp.log(d + 1e-30)), 0, atol=1e-6)


def test_a_data_set_without_votes_is_refused():
    method: Any = load("ldl").apply(methods.load("baseline"))
    with pytest.raises(UserError, match="ldl learns from votes, which this data set lacks"):
        method.targets(None, {"target": jnp.eye(3)}, CLOCK)
