"""Batch normalization: Flax's values and statistics, and the closed-form gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fer_jax.nn.normalization import BatchNorm, batch_normalize


def reference(x, scale, bias, epsilon=1e-5):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / jnp.sqrt(var + epsilon) * scale + bias


def operands(shape=(4, 5, 6, 3)):
    x, scale, bias, dy = jax.random.split(jax.random.key(0), 4)
    return (
        2.0 + 3.0 * jax.random.normal(x, shape),
        jax.random.normal(scale, shape[-1:]),
        jax.random.normal(bias, shape[-1:]),
        jax.random.normal(dy, shape),
    )


def test_value_and_gradients():
    x, scale, bias, dy = operands()
    got, pullback = jax.vjp(lambda *a: batch_normalize(*a, None, 1e-5)[0], x, scale, bias)
    want, want_pullback = jax.vjp(reference, x, scale, bias)
    np.testing.assert_allclose(got, want, atol=1e-5)
    for a, b in zip(pullback(dy), want_pullback(dy), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("shape", [(4, 3), (2, 2, 1, 3), (64, 6, 6, 3)])
@pytest.mark.parametrize("ratio", [100, 1_000])
def test_a_large_mean_does_not_hide_the_variance(shape, ratio):
    x = (ratio + np.random.default_rng(0).normal(size=shape)).astype(np.float32)
    wide, axes = x.astype(np.float64), tuple(range(x.ndim - 1))
    mask = jnp.arange(len(x)) > 0
    for chosen, kept in ((None, wide), (mask, wide[1:])):
        y, mean, variance = jax.jit(batch_normalize, static_argnums=4)(x, jnp.ones(3), jnp.zeros(3), chosen, 1e-5)
        want = kept.mean(axes), kept.var(axes)
        np.testing.assert_allclose(mean, want[0], rtol=2e-7)
        np.testing.assert_allclose(variance, want[1], rtol=1e-5)
        np.testing.assert_allclose(y, (wide - want[0]) / np.sqrt(want[1] + 1e-5), atol=5e-7 * ratio)


def test_a_constant_channel_stays_finite():
    x = jnp.full((2, 3, 3, 1), 1e3)
    y, pullback = jax.vjp(lambda x: batch_normalize(x, jnp.ones(1), jnp.zeros(1), None, 1e-5)[0], x)
    assert np.isfinite(y).all()
    assert np.isfinite(pullback(jnp.ones_like(y))[0]).all()


@pytest.mark.parametrize("train", [True, False])
def test_module_agrees_with_flax(train):
    x, scale, bias, _ = operands()
    ours, theirs = BatchNorm(), nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
    variables = ours.init(jax.random.key(0), x, train=True)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, theirs.init(jax.random.key(0), x))
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], 0)  # making parameters sees no data
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": bias, "var": scale**2}}
    y, updated = ours.apply(variables, x, train=train, mutable=["batch_stats"])
    want, want_updated = theirs.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(y, want, atol=1e-5)
    for a, b in zip(jax.tree.leaves(updated), jax.tree.leaves(want_updated), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_statistics_stay_float32_under_bfloat16():
    x = operands()[0].astype(jnp.bfloat16)
    module = BatchNorm(dtype=jnp.bfloat16)
    y, variables = module.init_with_output(jax.random.key(0), x, train=True)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    gradient = jax.grad(lambda x: module.apply(variables, x, train=True, mutable=["batch_stats"])[0].sum())(x)
    assert gradient.dtype == jnp.bfloat16


MASK = jnp.array([True, False, True, True])


def test_masked_statistics_are_those_of_the_other_examples():
    x, scale, bias, dy = operands()
    x = x.at[1].set(99.0)
    kept = np.flatnonzero(MASK)

    def of_the_kept(x, scale, bias):
        """The statistics of x[kept], applied to all of x."""
        mean, var = x[kept].mean((0, 1, 2)), x[kept].var((0, 1, 2))
        return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias

    got, pullback = jax.vjp(lambda *a: batch_normalize(*a, MASK, 1e-5)[0], x, scale, bias)
    want, want_pullback = jax.vjp(of_the_kept, x, scale, bias)
    np.testing.assert_allclose(got[kept], want[kept], atol=1e-5)
    for a, b in zip(pullback(dy), want_pullback(dy), strict=True):  # a gradient at the masked example, too, is right
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)
    silent = pullback(dy.at[1].set(0.0))
    np.testing.assert_array_equal(silent[0][1], 0)
    alone = jax.vjp(lambda *a: batch_normalize(*a, None, 1e-5)[0], x[kept], scale, bias)[1](dy[kept])
    np.testing.assert_allclose(silent[0][kept], alone[0], atol=2e-5)
    np.testing.assert_allclose(silent[1], alone[1], rtol=1e-4)


def test_running_statistics_follow_the_mask_and_rest_without_any_example():
    x, scale, bias, _ = operands()
    module = BatchNorm()
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": bias, "var": scale**2}}
    kept = np.flatnonzero(MASK)
    _, masked = module.apply(variables, x, train=True, mask=MASK, mutable=["batch_stats"])
    _, alone = module.apply(variables, x[kept], train=True, mutable=["batch_stats"])
    for a, b in zip(jax.tree.leaves(masked), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    y, nothing = module.apply(variables, x, train=True, mask=jnp.zeros(4, bool), mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, nothing["batch_stats"], variables["batch_stats"])
    assert np.isfinite(y).all()
