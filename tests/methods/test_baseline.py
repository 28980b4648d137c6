"""The baseline: dtypes, dropout and the contract (its parameters are counted in test_parameters)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from planted import terms_of

from fer_jax.errors import UserError
from fer_jax.methods import baseline

BATCH = planted.batch_of(np.arange(6), np.random.default_rng(0))


def tiny(**fields):
    return baseline.Model(num_classes=planted.CLASSES, backbone=planted.TinyTrunk, **fields)


@functools.partial(jax.jit, static_argnums=0)
def init(model):
    return model.init(jax.random.key(1), BATCH, train=False)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_returns_float32_logits_features_and_losses(dtype):
    model = tiny(dtype=dtype, affect=True)
    variables = init(model)
    logits, aux = jax.jit(lambda: model.apply(variables, BATCH, train=True))()
    terms = terms_of(baseline, logits, aux, BATCH | {"valence": jnp.zeros(6), "arousal": jnp.zeros(6)})
    assert set(terms) == set(baseline.METHOD.weights)
    expected = -np.diagonal(jax.nn.log_softmax(logits))
    np.testing.assert_allclose(terms["cross_entropy"], expected, rtol=1e-6)
    assert logits.shape == (6, 6)
    assert aux["features"].shape == (6, 32)
    assert aux["affect"].shape == (6, 2)
    leaves = [logits, aux["features"], aux["affect"], *terms.values(), *jax.tree.leaves(variables)]
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)


def test_classifier_starts_as_in_pytorch():
    wide = functools.partial(planted.TinyTrunk, width=512)
    classifier = init(baseline.Model(num_classes=7, backbone=wide))["params"]["classifier"]
    bound = 512**-0.5
    assert np.abs(classifier["kernel"]).max() <= bound
    assert np.abs(classifier["bias"]).max() <= bound
    np.testing.assert_allclose(np.std(classifier["kernel"]), bound / 3**0.5, rtol=0.05)


def test_dropout_works_only_while_training():
    model = tiny(dropout=0.5)
    variables = init(model)

    @jax.jit
    def train(key):
        return model.apply(variables, BATCH, train=True, rngs={"dropout": key})[0]

    assert not np.allclose(train(jax.random.key(1)), train(jax.random.key(2)))
    test = jax.jit(lambda: model.apply(variables, BATCH, train=False)[0])
    np.testing.assert_array_equal(test(), test())


def test_mistakes_are_named():
    with pytest.raises(UserError, match="depth 20"):
        init(baseline.Model(num_classes=7, depth=20))
    with pytest.raises(UserError, match="stem 'tiny'"):
        init(baseline.Model(num_classes=7, stem="tiny"))
