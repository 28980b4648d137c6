"""Correction by a transition matrix: the identity changes nothing, the true matrix leads to the clean posterior."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import methods
from fer_jax.methods.losses import cross_entropy
from fer_jax.methods.method import Clock, Output
from fer_jax.methods.objective import load
from fer_jax.methods.strategies import correction

CLOCK = Clock(jnp.int32(0), jnp.float32(0.0))
T = np.array([[0.5, 0.3, 0.2], [0.1, 0.9, 0.0], [0.0, 0.4, 0.6]], np.float32)
CLEAN = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.05, 0.05, 0.9]], np.float32)


def terms(method, logits, target, matrix, **fields):
    aux = {"transition": jnp.broadcast_to(jnp.asarray(matrix), (len(logits), 3, 3))}
    return method.loss((Output(logits, aux),), {"target": target, **fields}, CLOCK)


def corrected(**options) -> Any:
    return load("correction").apply(methods.load("baseline"), **options)


def test_the_identity_is_cross_entropy_in_both_forms():
    logits = 30 * jax.random.normal(jax.random.key(0), (8, 3))  # sure predictions, whose p underflow
    target = jax.nn.one_hot(jnp.arange(8) % 3, 3)
    for kind in correction.KINDS:
        found = terms(corrected(kind=kind), logits, target, np.eye(3, dtype=np.float32), label_shares=target)
        np.testing.assert_allclose(found["cross_entropy"], cross_entropy(logits, target), rtol=1e-5, atol=1e-5)


def test_the_minimiser_with_the_true_matrix_is_the_clean_posterior():
    """Theorem 2: what is best for the noisy posterior T^T p under the corrected loss predicts p."""
    method, noisy = corrected(), jnp.asarray(CLEAN @ T)
    gradient = jax.jit(jax.grad(lambda z, m: jnp.sum(terms(method, z, noisy, m)["cross_entropy"])))
    found = {}
    for name, matrix in (("true", T), ("none", np.eye(3, dtype=np.float32))):
        logits = jnp.zeros((3, 3))
        for _ in range(6000):
            logits = logits - gradient(logits, matrix)
        found[name] = jax.nn.softmax(logits)
    np.testing.assert_allclose(found["true"], CLEAN, atol=2e-3)
    np.testing.assert_allclose(found["none"], noisy, atol=1e-3)
    assert np.argmax(found["none"][0]) == 0 < np.abs(found["none"] - CLEAN).max()


def test_shares_of_the_truth_follow_from_those_of_the_labels():
    truth = jnp.array([0.5, 0.2, 0.3])
    np.testing.assert_allclose(correction.true_shares(truth @ T, jnp.asarray(T)), truth, atol=1e-3)
    shift = correction.prior_shift(jnp.broadcast_to(truth @ T, (4, 3)), jnp.broadcast_to(jnp.asarray(T), (4, 3, 3)))
    np.testing.assert_allclose(shift[0], np.log(truth @ T / truth), atol=5e-3)


def test_anchors_give_the_matrix_back():
    posterior = np.concatenate([np.eye(3), CLEAN, CLEAN[::-1]]).astype(np.float32)
    # Each row's largest noisy posterior belongs to a picture that certainly is of its class.
    matrix = np.array([[0.6, 0.2, 0.2], [0.1, 0.9, 0.0], [0.1, 0.2, 0.7]], np.float32)
    np.testing.assert_allclose(correction.anchor_matrix(jnp.asarray(posterior @ matrix), 1), matrix, atol=1e-6)


def test_an_estimated_matrix_is_used_from_its_epoch_on_and_stays():
    method = corrected(matrix="estimated", start=2.0, anchors=1)
    fields = {"target": np.eye(3, dtype=np.float32)}
    memory = jax.tree.map(jnp.asarray, method.memory(fields))
    batch = {"target": jnp.eye(3), "index": jnp.arange(3), "mask": jnp.ones(3, bool)}
    outputs = (Output(jnp.log(jnp.asarray(T[[0, 1, 2]]) + 1e-9), {}),)
    before, after = Clock(jnp.int32(5), jnp.float32(1.9)), Clock(jnp.int32(6), jnp.float32(2.0))
    memory = method.remember(memory, outputs, batch, before)
    np.testing.assert_array_equal(method.targets(memory, batch, before)["transition"][0], np.eye(3))
    np.testing.assert_allclose(method.targets(memory, batch, after)["transition"][2], T, atol=1e-6)
    later = method.remember(memory, (Output(jnp.zeros((3, 3)), {}),), batch, after)
    np.testing.assert_array_equal(later["predictions"], memory["predictions"])


@pytest.mark.parametrize("w", [-2.0, 3.0])
def test_a_learned_matrix_is_stochastic_with_a_leading_diagonal(w):
    w = w + jax.random.normal(jax.random.key(1), (5, 5))
    found = correction.learned_matrix(w)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    assert (found.argmax(axis=1) == jnp.arange(5)).all()
    # log det T is largest, 0, for the identity.
    assert jnp.linalg.slogdet(found).logabsdet < 0
