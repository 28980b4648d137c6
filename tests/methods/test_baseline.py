"""The baseline: shapes, dtypes, dropout and the contract (its parameters are counted in test_parameters)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.methods import baseline

BATCH = {
    "image": jax.random.normal(jax.random.key(0), (4, 16, 16, 3)),
    "target": jax.nn.one_hot(jnp.arange(4), 7),
    "mask": jnp.ones(4, jnp.bool_),
}


def tiny(**fields):
    return baseline.Model(num_classes=7, width=4, stem="small", **fields)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@jax.numpy_dtype_promotion("standard")  # Flax's batch norm mixes bfloat16 with float32 statistics
def test_returns_float32_logits_and_features(dtype):
    model = tiny(dtype=dtype)
    variables = jax.jit(lambda: model.init(jax.random.key(1), BATCH, train=False))()
    (logits, aux), updated = jax.jit(lambda v: model.apply(v, BATCH, train=True, mutable=["batch_stats"]))(
        variables
    )
    assert logits.shape == (4, 7)
    assert logits.dtype == jnp.float32
    assert aux["features"].shape == (4, 32)
    assert set(updated) == {"batch_stats"}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((variables, updated)))
    terms = baseline.loss(logits, aux, BATCH)
    assert set(terms) == set(baseline.LOSS_WEIGHTS)
    np.testing.assert_allclose(
        terms["cross_entropy"], -jax.nn.log_softmax(logits)[jnp.arange(4), :4].diagonal()
    )


def test_classifier_starts_as_in_pytorch():
    model = baseline.Model(num_classes=7)
    kernel, bias = jax.jit(
        lambda: [
            model.init(jax.random.key(1), BATCH, train=False)["params"]["classifier"][k]
            for k in ("kernel", "bias")
        ]
    )()
    bound = 512**-0.5
    assert np.abs(kernel).max() <= bound
    assert np.abs(bias).max() <= bound
    np.testing.assert_allclose(np.std(kernel), bound / 3**0.5, rtol=0.05)


def test_dropout_works_only_while_training():
    model = tiny(dropout=0.5)
    variables = jax.jit(lambda: model.init(jax.random.key(1), BATCH, train=False))()
    train = jax.jit(
        lambda key: model.apply(variables, BATCH, train=True, mutable=["batch_stats"], rngs={"dropout": key})[
            0
        ][0]
    )
    assert not np.allclose(train(jax.random.key(1)), train(jax.random.key(2)))
    test = jax.jit(lambda: model.apply(variables, BATCH, train=False)[0])
    np.testing.assert_array_equal(test(), test())


def test_mistakes_are_named():
    with pytest.raises(UserError, match="depth 20"):
        baseline.Model(num_classes=7, depth=20).init(jax.random.key(0), BATCH, train=False)
    with pytest.raises(UserError, match="stem 'tiny'"):
        baseline.Model(num_classes=7, stem="tiny").init(jax.random.key(0), BATCH, train=False)
