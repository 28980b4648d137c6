"""Every lowering is the same function as XLA's convolution: in value and in both gradients."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fer_jax.nn import convolution
from fer_jax.nn.convolution import Conv, Lowering, choose_lowering, conv2d, conv_cpu, conv_patches, conv_taps, conv_xla
from fer_jax.nn.lowering import compiled_for
from fer_jax.nn.winograd import conv_winograd

# (batch, height, width), (kh, kw, C, F), stride, padding
CASES = [
    ((2, 9, 7), (3, 3, 5, 4), 1, ((1, 1), (1, 1))),
    ((2, 9, 7), (3, 3, 5, 4), 2, ((1, 1), (1, 1))),
    ((2, 8, 8), (3, 3, 5, 4), 2, ((1, 1), (1, 1))),
    ((3, 2, 2), (3, 3, 6, 8), 1, ((1, 1), (1, 1))),
    ((3, 3, 3), (3, 3, 6, 8), 2, ((1, 1), (1, 1))),
    ((3, 1, 1), (3, 3, 6, 8), 1, ((1, 1), (1, 1))),
    ((2, 13, 11), (7, 7, 3, 4), 2, ((3, 3), (3, 3))),
    ((2, 6, 5), (1, 1, 4, 3), 1, ((0, 0), (0, 0))),
    ((2, 7, 5), (1, 1, 4, 3), 2, ((0, 0), (0, 0))),
    ((2, 5, 5), (1, 1, 4, 3), 1, ((1, 0), (0, 2))),
    ((2, 6, 6), (2, 3, 4, 3), 1, ((0, 1), (2, 0))),
    ((2, 7, 7), (5, 5, 2, 3), 3, ((2, 2), (2, 2))),
    ((2, 1, 4), (3, 3, 2, 3), 2, ((1, 1), (1, 1))),
    ((1, 6, 6), (3, 3, 2, 256), 1, ((1, 1), (1, 1))),
]


def operands(space, kernel_shape, seed=0):
    a, b = jax.random.split(jax.random.key(seed))
    x = jax.random.normal(a, (*space, kernel_shape[2]))
    return x, jax.random.normal(b, kernel_shape) / np.sqrt(np.prod(kernel_shape[:3]))


def value_and_gradients(conv, x, kernel):
    dy = jax.random.normal(jax.random.key(7), jax.eval_shape(conv, x, kernel).shape)

    @jax.jit
    def passes(x, kernel, dy):
        y, pullback = jax.vjp(conv, x, kernel)
        return y, *pullback(dy)

    return passes(x, kernel, dy)


def check(conv, case):
    space, kernel_shape, stride, padding = case
    x, kernel = operands(space, kernel_shape)
    got = value_and_gradients(lambda x, k: conv(x, k, stride, padding), x, kernel)
    want = value_and_gradients(lambda x, k: conv_xla(x, k, stride, padding), x, kernel)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[8], CASES[10], CASES[11]], ids=str)
def test_patches_times_a_matrix_are_the_same_function(case):
    check(conv_patches, case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_taps_are_the_same_function(case, monkeypatch):
    monkeypatch.setattr(convolution, "choose_lowering", lambda *_: Lowering(*["taps"] * 3))
    check(conv_cpu, case)


# Even and odd maps, one cell, padding of every kind.
WINOGRAD = [
    ((2, 9, 7), (3, 3, 5, 4), 1, ((1, 1), (1, 1))),
    ((2, 6, 8), (3, 3, 5, 4), 1, ((1, 1), (1, 1))),
    ((3, 1, 1), (3, 3, 5, 4), 1, ((1, 1), (1, 1))),
    ((2, 5, 6), (3, 3, 5, 4), 1, ((0, 0), (0, 0))),
    ((2, 5, 6), (3, 3, 5, 4), 1, ((3, 0), (1, 2))),
]


@pytest.mark.parametrize("case", WINOGRAD, ids=str)
def test_winograds_form_is_the_same_function(case, monkeypatch):
    monkeypatch.setattr(convolution, "choose_lowering", lambda *_: Lowering(*["winograd"] * 3))
    check(conv_cpu, case)


def test_winograds_form_rounds_no_worse_than_xlas():
    x, kernel = operands((2, 6, 6), (3, 3, 64, 64))
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    cells = [
        (padded[:, i : i + 6, j : j + 6], np.asarray(kernel[i, j], np.float64)) for i in range(3) for j in range(3)
    ]
    exact = sum(seen @ cell for seen, cell in cells)

    def error(y):
        return np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2))

    pad = ((1, 1), (1, 1))
    assert error(conv_winograd(x, kernel, pad)) < 2 * max(error(conv_xla(x, kernel, 1, pad)), 2.0**-24)


@pytest.mark.parametrize("case", CASES[1::4], ids=str)
def test_the_chosen_lowering_is_the_same_function(case):
    check(conv2d, case)


def test_xlas_form_and_differentiated_taps_are_the_same_function(monkeypatch):
    check(conv_taps, CASES[1])
    monkeypatch.setattr(convolution, "choose_lowering", lambda *_: Lowering(*["xla"] * 3))
    check(conv_cpu, CASES[1])


def test_other_devices_keep_xlas_convolution():
    x, kernel = operands((3, 2, 2), (3, 3, 6, 8))
    with compiled_for("gpu"):
        text = str(jax.make_jaxpr(lambda x, k: conv2d(x, k, 1, ((1, 1), (1, 1))))(x, kernel))
    assert "conv_general_dilated" in text
    assert "custom_vjp" not in text


def test_each_shape_takes_its_form():
    def forms(*shape):
        return choose_lowering(*shape, jnp.float32)

    assert forms((3, 3, 512, 512), (2, 2), 1) == ("taps", "taps", "taps")
    assert forms((3, 3, 64, 64), (12, 12), 1) == ("winograd", "winograd", "xla")
    assert forms((3, 3, 128, 128), (6, 6), 1) == ("winograd", "winograd", "winograd")
    assert forms((3, 3, 512, 512), (7, 7), 1) == ("winograd", "taps", "xla")
    assert choose_lowering((3, 3, 64, 64), (12, 12), 1, jnp.bfloat16) == ("xla", "xla", "xla")
    assert forms((3, 3, 64, 64), (56, 56), 1) == ("winograd", "winograd", "xla")
    assert forms((3, 3, 64, 64), (57, 57), 1) == ("xla", "xla", "xla")
    assert forms((3, 3, 32, 64), (12, 12), 1) == ("xla", "xla", "xla")
    assert forms((3, 3, 64, 128), (12, 12), 2) == ("xla", "taps", "taps")
    assert forms((7, 7, 3, 64), (24, 24), 2) == ("xla", "xla", "xla")


@pytest.mark.parametrize("stride", [1, 2])
def test_module_has_the_parameters_and_values_of_flax(stride):
    x, _ = operands((2, 9, 8), (3, 3, 5, 4))
    ours = Conv(4, (3, 3), stride, use_bias=True)
    theirs = nn.Conv(4, (3, 3), stride, padding=1)
    variables = ours.init(jax.random.key(1), x)
    variables["params"]["bias"] = jnp.arange(4.0)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, theirs.init(jax.random.key(1), x))
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), atol=1e-5)


def test_initial_kernel_is_he_normal_over_the_fan_out():
    kernel: Any = Conv(256).init(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))["params"]["kernel"]
    assert float(kernel.std()) == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.01)
    assert float(jnp.abs(kernel).max()) > 3.5 * float(kernel.std())  # not truncated at two deviations


def test_computes_in_the_given_dtype_with_float32_parameters():
    x, _ = operands((2, 4, 4), (3, 3, 5, 4))
    made: Any = Conv(4, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), x)
    y, variables = made
    assert y.dtype == jnp.bfloat16
    assert variables["params"]["kernel"].dtype == jnp.float32


def test_one_kernel_per_lane_under_vmap():
    x, _ = operands((2, 4, 4), (3, 3, 5, 4))
    kernels = jax.random.normal(jax.random.key(3), (3, 3, 3, 5, 4))
    lanes = jnp.stack([x, x + 1, x * 2])
    pad = ((1, 1), (1, 1))
    got = jax.vmap(lambda x, k: conv2d(x, k, 2, pad))(lanes, kernels)
    want = jnp.stack([conv_xla(a, k, 2, pad) for a, k in zip(lanes, kernels, strict=True)])
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_winograds_form_under_vmap(monkeypatch):
    monkeypatch.setattr(convolution, "choose_lowering", lambda *_: Lowering(*["winograd"] * 3))
    x, _ = operands((2, 5, 4), (3, 3, 5, 4))
    kernels = jax.random.normal(jax.random.key(3), (2, 3, 3, 5, 4))
    lanes, pad = jnp.stack([x, x + 1]), ((1, 1), (1, 1))

    def gradients(conv, x, kernel):
        return jax.grad(lambda x, k: jnp.sum(jnp.sin(conv(x, k, 1, pad))), argnums=(0, 1))(x, kernel)

    got = jax.vmap(lambda x, k: gradients(conv_cpu, x, k))(lanes, kernels)
    want = [gradients(conv_xla, a, k) for a, k in zip(lanes, kernels, strict=True)]
    for number, (dx, dkernel) in enumerate(want):
        np.testing.assert_allclose(got[0][number], dx, atol=1e-4)
        np.testing.assert_allclose(got[1][number], dkernel, atol=1e-3)


@pytest.mark.parametrize(("size", "channels", "stride"), [(2, 8, 1), (6, 8, 2), (7, 128, 1)])
def test_a_sharded_batch_stays_sharded(size, channels, stride):
    """Whatever the lowering, devices exchange kernel gradients and nothing as large as an activation."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    x, kernel = operands((8, size, size), (3, 3, channels, channels))
    batch, replicated = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())

    def passes(x, kernel):
        y, pullback = jax.vjp(lambda x, k: conv2d(x, k, stride, ((1, 1), (1, 1))), x, kernel)
        return y, *pullback(y)

    step = jax.jit(passes, in_shardings=(batch, replicated), out_shardings=(batch, batch, replicated))
    text = step.lower(x, kernel).compile().as_text()
    assert not re.search(r"all-gather|all-to-all|collective-permute", text)
    one_device = jax.jit(passes)(x, kernel)
    for a, b in zip(step(x, kernel), one_device, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(b).max()))
