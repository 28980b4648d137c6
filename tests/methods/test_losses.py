"""Losses of classes, and of valence and arousal: by hand, against PyTorch where it is installed, and as properties."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.evaluation.metrics import affect_scores
from fer_jax.methods.losses import CLASSIFICATION, affect_terms, classification_loss, cross_entropy, multi_target

LOGITS = jnp.array([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])


def test_cross_entropy_by_hand():
    target = jnp.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    z = np.exp(np.asarray(LOGITS)).sum(-1)
    expected = [np.log(z[0]) - 2.0, np.log(z[1]) - 0.5]
    np.testing.assert_allclose(cross_entropy(LOGITS, target), expected, rtol=1e-6)


def test_cross_entropy_of_hopeless_logits_is_finite():
    logits = jnp.array([[0.0, -jnp.inf], [1e30, -1e30]])
    target = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(cross_entropy(logits, target), [0.0, 0.0])
    assert cross_entropy(LOGITS.astype(jnp.bfloat16), jnp.eye(3)[:2]).dtype == jnp.float32


def test_multi_target_counts_the_likeliest_allowed_class():
    p = jax.nn.softmax(LOGITS)
    target = jnp.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]])
    expected = [-jnp.log(p[0, 0]), -jnp.log(p[1, 0])]
    np.testing.assert_allclose(multi_target(LOGITS, target), expected, rtol=1e-6)


def test_multi_target_prefers_a_forbidden_class_only_when_a_thousand_times_likelier():
    target = jnp.array([[1.0, 0.0]])
    near, far = jnp.array([[0.0, 6.0]]), jnp.array([[0.0, 8.0]])
    np.testing.assert_allclose(multi_target(near, target), -jax.nn.log_softmax(near)[:, 0], rtol=1e-6)
    np.testing.assert_allclose(multi_target(far, target), -jax.nn.log_softmax(far)[:, 1] - np.log(1e-3), rtol=1e-6)


def test_multi_target_gradient_is_that_of_one_class():
    """The gradient in the probabilities is zero for every class but the chosen one."""
    target = jnp.array([[0.4, 0.3, 0.3]])
    log_p = jnp.log(jnp.array([[0.2, 0.5, 0.3]]))
    grad = jax.grad(lambda logits: multi_target(logits, target).sum())(log_p)
    np.testing.assert_allclose(grad, np.array([[0.2, 0.5, 0.3]]) - np.array([[0.0, 1.0, 0.0]]), atol=1e-6)


def test_a_misspelt_loss_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="cross_entropy"):
        classification_loss(LOGITS, jnp.eye(3)[:2], "cross-entropy")


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(
    kind=st.sampled_from(sorted(CLASSIFICATION)),
    logits=hnp.arrays(np.float32, (5, 4), elements=st.floats(-30, 30, width=32)),
    votes=hnp.arrays(np.int32, (5, 4), elements=st.integers(0, 5)),
    order=st.permutations(range(5)),
)
def test_losses_are_non_negative_and_permute_with_the_batch(kind, logits, votes, order):
    votes[:, 0] += votes.sum(1) == 0
    target = jnp.asarray(votes / votes.sum(1, keepdims=True), jnp.float32)
    values = np.asarray(classification_loss(jnp.asarray(logits), target, kind))
    order = np.array(order)
    assert (values >= 0).all()
    permuted = classification_loss(jnp.asarray(logits)[order], target[order], kind)
    np.testing.assert_allclose(permuted, values[order], rtol=1e-6)


def test_examples_without_valence_and_arousal_change_nothing():
    rng = np.random.default_rng(0)
    predicted, truth = rng.uniform(-1, 1, (2, 8, 2)).astype(np.float32)
    none = np.array([-2.0, -5.0, np.nan, 0.5], np.float32)  # the last row is no example
    rated = {"valence": truth[:, 0], "arousal": truth[:, 1], "mask": np.ones(8, bool)}
    batch = {name: jnp.asarray(np.append(values, none)) for name, values in rated.items() if name != "mask"}
    batch["mask"] = jnp.arange(12) < 11
    more = jnp.asarray(np.concatenate([predicted, rng.uniform(-1, 1, (4, 2)).astype(np.float32)]))

    def total(name, batch):
        return jax.jit(jax.value_and_grad(lambda p: jnp.mean(affect_terms(p, batch)[name])))

    scores = affect_scores(predicted, truth)
    expected = {
        "affect_ccc": 1 - (scores["valence_ccc"] + scores["arousal_ccc"]) / 2,
        "affect_squared": (scores["valence_rmse"] ** 2 + scores["arousal_rmse"] ** 2) / 2,
    }
    for name, value in expected.items():
        loss, slope = total(name, batch)(more)
        assert float(loss) == pytest.approx(value, rel=1e-5)
        _, alone = total(name, {name: jnp.asarray(values) for name, values in rated.items()})(jnp.asarray(predicted))
        np.testing.assert_allclose(slope[:8], alone, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(slope[8:], 0)
        nothing, slope = total(name, batch | {"mask": jnp.zeros(12, bool)})(more)
        assert nothing == 0
        np.testing.assert_array_equal(slope, 0)


def test_valence_and_arousal_are_not_learned_where_nobody_rated_them():
    batch = {"valence": jnp.zeros(2), "arousal": jnp.zeros(2), "mask": jnp.ones(2, bool), "target_hits": jnp.eye(2)}
    with pytest.raises(UserError, match="mixed faces have no ratings"):
        affect_terms(jnp.zeros((2, 2)), batch)
    with pytest.raises(UserError, match="this data set has no valence and arousal"):
        affect_terms(jnp.zeros((2, 2)), {"mask": batch["mask"]})
