"""Max pooling: the value and gradient of XLA's reduce-window, ties included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fer_jax.nn.lowering import compiled_for
from fer_jax.nn.pooling import adaptive_average_pool, global_average_pool, global_max_pool, max_pool

CASES = [
    (3, 2, 1, (12, 12)),
    (3, 2, 1, (11, 7)),
    (2, 2, 0, (8, 6)),
    (3, 1, 1, (5, 5)),
    (3, 3, 0, (10, 9)),
    (2, 2, 0, (7, 5)),
]


def reference(x, window, stride, padding):
    return nn.max_pool(x, (window, window), (stride, stride), ((padding, padding), (padding, padding)))


@pytest.mark.parametrize(("case", "ties"), [*((case, False) for case in CASES), (CASES[0], True), (CASES[5], True)])
def test_value_and_gradient_are_those_of_select_and_scatter(case, ties):
    window, stride, padding, size = case
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    if ties:
        x = jnp.round(x)
    y, pullback = jax.vjp(lambda x: max_pool(x, window, stride, padding), x)
    want, want_pullback = jax.vjp(lambda x: reference(x, window, stride, padding), x)
    np.testing.assert_array_equal(y, want)
    dy = jax.random.normal(jax.random.key(1), y.shape)
    (dx,) = pullback(dy)
    np.testing.assert_allclose(dx, want_pullback(dy)[0], atol=1e-6)
    assert float(dx.sum()) == pytest.approx(float(dy.sum()), abs=1e-4)  # no gradient is lost or doubled


def test_padding_never_wins():
    assert float(max_pool(jnp.full((1, 4, 4, 1), -5.0)).max()) == -5.0


def test_other_devices_keep_reduce_window():
    with compiled_for("tpu"):
        assert "reduce_window_max" in str(jax.make_jaxpr(max_pool)(jnp.zeros((1, 8, 8, 1))))


def test_keeps_bfloat16():
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 2), jnp.bfloat16)
    y, pullback = jax.vjp(max_pool, x)
    assert y.dtype == jnp.bfloat16
    assert pullback(y)[0].dtype == jnp.bfloat16


def test_global_average_pool():
    x = jnp.arange(2 * 3 * 4 * 5, dtype=jnp.float32).reshape(2, 3, 4, 5)
    np.testing.assert_allclose(global_average_pool(x), np.asarray(x).mean((1, 2)), rtol=1e-6)
    assert global_average_pool(x.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("size", [(3, 1), (7, 12)])
def test_adaptive_average_is_the_mean_of_each_cells_rows_and_columns(size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    got = np.asarray(adaptive_average_pool(jnp.asarray(x), 7))
    for i in range(7):
        for j in range(7):
            (top, bottom), (left, right) = (
                (k * n // 7, int(np.ceil((k + 1) * n / 7))) for k, n in zip((i, j), size, strict=True)
            )
            np.testing.assert_allclose(got[:, i, j], x[:, top:bottom, left:right].mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_maximum_goes_to_the_first_of_equal_cells():
    x = jnp.array([[[[1.0], [3.0]], [[3.0], [2.0]]]])
    value, gradient = jax.value_and_grad(lambda x: global_max_pool(x).sum())(x)
    assert value == 3
    np.testing.assert_array_equal(gradient[0, ..., 0], [[0, 1], [0, 0]])
