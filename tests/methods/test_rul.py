"""RUL against its equations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fer_jax.methods import rul
from fer_jax.methods.losses import cross_entropy
from fer_jax.methods.method import Clock, Output

KEYS = [jax.random.key(seed) for seed in range(5)]
PAIR = jnp.array([1, 0])  # each the partner of the other


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


class Trunk(nn.Module):
    """A map [B, 2, 2, 6] of the pixels at its corners."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        last = nn.Dense(6)(x[:, ::8, ::8])
        return jnp.mean(last, axis=(1, 2)), {"last": last}


def of_model(target, **fields):
    """What the model returns for a batch while it trains."""
    model = rul.Model(num_classes=target.shape[1], features=5, backbone=Trunk, **fields)
    batch = {"image": normal(0, len(target), 16, 16, 3), "target": target}

    @jax.jit
    def outputs():
        keys = {name: jax.random.key(n) for n, name in enumerate(("params", "dropout", "noise"))}
        variables = model.init(keys, batch, train=True)
        (logits, aux), _ = model.apply(variables, batch, train=True, mutable=["batch_stats"], rngs=keys)
        mixed = rul.mixture(aux["features"], jnp.argmax(aux["partner_target"], -1), aux["weight"])
        return logits, aux, model.apply(variables, mixed, method="classify")

    return outputs()


def test_the_weights_of_a_pair_add_up_to_one_and_alike_ones_mix_evenly():
    sigma = rul.uncertainty(normal(1, 6, 8) * 20, clip=10.0)
    partner = rul.partners(KEYS[0], jnp.eye(6), 1)
    own = rul.relative_uncertainty(sigma, partner)
    np.testing.assert_allclose(own + sigma[partner] / (sigma + sigma[partner]), 1.0, rtol=1e-5)
    assert 0 < own.min() < own.max() < 1
    assert sigma.max() <= np.exp(10.0) * 1.0001
    even = rul.relative_uncertainty(jnp.full(6, 0.3), partner)
    mu = normal(2, 6, 8)
    np.testing.assert_allclose(rul.mixture(mu, partner, even), (mu + mu[partner]) / 2, rtol=1e-5, atol=1e-6)


def test_the_model_mixes_as_in_the_equations():
    logits, aux, classified = of_model(jnp.eye(6))
    sigma = np.asarray(aux["uncertainty"])[:, 0]
    j = np.argmax(aux["partner_target"], axis=-1)
    assert sorted(j) == list(range(6))
    np.testing.assert_allclose(aux["weight"], sigma / (sigma + sigma[j]), rtol=1e-5)
    np.testing.assert_allclose(aux["mixed_logits"], classified, rtol=1e-4, atol=1e-5)
    assert logits.shape == (6, 6)
    _, aux, _ = of_model(jnp.eye(6), mixing="equal")
    np.testing.assert_array_equal(aux["weight"], 0.5)


def test_two_views_in_one_pass_have_the_loss_of_the_whole_batch():
    """As those of VAC: the partner of an example may be in the other view."""
    target = jnp.eye(6)[jnp.array([0, 1, 2, 0, 1, 2])]
    logits, aux, _ = of_model(target)
    clock = Clock(jnp.int32(0), jnp.float32(0))
    whole = rul.loss((Output(logits, aux),), {"target": target}, clock)["add_up"]
    aux = {name: values for name, values in aux.items() if name != "maps"}
    halves = [jax.tree.map(lambda x, n=n: jnp.split(x, 2)[n], (logits, aux)) for n in (0, 1)]
    found = [rul.loss((Output(*half),), {"target": target[:3]}, clock)["add_up"] for half in halves]
    np.testing.assert_allclose(jnp.concatenate(found), whole, rtol=1e-5)


def loss_of(mixed_logits, target, partner, weight, **options):
    aux = {"mixed_logits": mixed_logits, "partner_target": target[partner], "weight": weight}
    return rul.loss((Output(mixed_logits, aux),), {"target": target}, Clock(jnp.int32(0), jnp.float32(0)), **options)


def test_mixed_with_itself_an_example_has_ordinary_cross_entropy():
    mu, target, kernel = normal(0, 4, 5), jnp.eye(3)[jnp.array([0, 1, 2, 0])], normal(1, 5, 3)
    own = rul.relative_uncertainty(jnp.array([0.2, 3.0, 1.0, 0.5]), jnp.arange(4))
    mixed = rul.mixture(mu, jnp.arange(4), own)
    found = loss_of(mixed @ kernel, target, jnp.arange(4), own)["add_up"]
    np.testing.assert_allclose(found, cross_entropy(mu @ kernel, target), rtol=1e-5)


def test_both_labels_count_by_halves_or_by_their_weights():
    logits, target = normal(3, 2, 3), jnp.eye(3)[jnp.array([0, 2])]
    weight = jnp.array([0.9, 0.1])
    first, second = cross_entropy(logits, target), cross_entropy(logits, target[PAIR])
    halves = loss_of(logits, target, PAIR, weight)["add_up"]
    np.testing.assert_allclose(halves, (first + second) / 2, rtol=1e-5)
    weights = loss_of(logits, target, PAIR, weight, shares="weights")["add_up"]
    np.testing.assert_allclose(weights, weight * first + (1 - weight) * second, rtol=1e-5)


def test_a_step_raises_the_uncertainty_of_the_harder_of_two():
    """g(mu_0) is barely right, g(mu_1) by a large margin: the mixture needs more of the first to be both."""
    mu, target = jnp.array([[0.1, 0.0], [0.0, 5.0]]), jnp.eye(2)

    def loss(log_variance):
        weight = rul.relative_uncertainty(rul.uncertainty(log_variance, 10.0), PAIR)
        return loss_of(rul.mixture(mu, PAIR, weight), target, PAIR, weight)["add_up"].sum()

    gradient = jax.grad(loss)(jnp.zeros((2, 4)))
    assert gradient[0].max() < 0 < gradient[1].min()


@pytest.mark.parametrize("key", KEYS, ids=range(5))
def test_partners_of_another_label_are_drawn_where_there_are_any(key):
    target = jnp.eye(4)[jnp.arange(16) % 4]
    once, again = rul.partners(key, target, 1), rul.partners(key, target, rul.DRAWS)
    assert sorted(np.asarray(once)) == list(range(16))
    assert (np.asarray(again) % 4 != np.arange(16) % 4).mean() > 0.99
    same = rul.partners(key, jnp.eye(4)[jnp.zeros(16, int)], rul.DRAWS)
    assert same.min() >= 0  # nobody has another label: any partner will do


def test_without_its_branch_the_model_predicts_the_same_and_has_no_uncertainty():
    model = rul.Model(num_classes=3, features=5, backbone=Trunk)
    batch = {"image": normal(0, 2, 16, 16, 3)}

    @jax.jit
    def outputs():
        variables = model.init(jax.random.key(0), batch, train=False)
        tested = {**variables, "params": rul.METHOD.at_test(variables["params"])}
        return model.apply(variables, batch, train=False), model.apply(tested, batch, train=False)

    (whole, aux), (without, tested) = outputs()
    np.testing.assert_array_equal(whole, without)
    assert aux["uncertainty"].shape == (2, 1)
    assert "uncertainty" not in tested
