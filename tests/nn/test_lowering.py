"""A program is written for the device it is meant for, whatever the default backend is."""

import jax
import jax.numpy as jnp
import pytest

from fer_jax.nn.lowering import compiled_for, for_cpu, traced_for


def test_the_default_backend_decides_where_nobody_has_said(monkeypatch):
    assert for_cpu()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not for_cpu()
    with compiled_for("cpu"):  # config.train.platform=cpu on a machine with a GPU
        assert for_cpu()
        with compiled_for("tpu"):
            assert not for_cpu()
        assert for_cpu()


def test_an_error_leaves_nothing_behind():
    with pytest.raises(ZeroDivisionError), compiled_for("gpu"):
        raise ZeroDivisionError
    assert for_cpu()


def test_a_function_is_traced_for_its_platform_and_its_gradient_too():
    @jax.custom_vjp
    def square(x):
        return x * x

    seen = []

    def forward(x):
        seen.append(("forward", for_cpu()))
        return square(x), x

    def backward(x, dy):
        seen.append(("backward", for_cpu()))
        return (2 * x * dy,)

    square.defvjp(forward, backward)
    program = jax.jit(traced_for("tpu", jax.grad(square)), donate_argnums=0)
    assert program(jnp.float32(3)) == 6
    assert seen == [("forward", False), ("backward", False)]
    assert for_cpu()
