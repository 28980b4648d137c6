"""What XLA and the C library are told on a CPU: the same results, and nothing where they do not know it."""

import functools
import platform
import sys

import jax
import numpy as np
import pytest

from fer_jax.nn.resnet import BasicBlock
from fer_jax.training import allocator, compiler
from fer_jax.training.sharding import make_mesh


@pytest.fixture
def unasked():
    """The answer whether XLA knows an option is kept: it is asked anew before and after the test."""
    compiler._cpu_knows_step_options.cache_clear()
    yield
    compiler._cpu_knows_step_options.cache_clear()


def test_the_options_change_rounding_only():
    options = compiler.step_options(make_mesh(devices=1))
    if options is None:
        pytest.skip("this XLA does not know the options: there is nothing to compare")
    model = BasicBlock(64)
    x = jax.random.normal(jax.random.key(0), (4, 12, 12, 64))
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(1), x)

    def loss(params, x):
        return (model.apply({**variables, "params": params}, x, train=False) ** 2).mean()

    plain = jax.jit(jax.grad(loss))(variables["params"], x)
    tuned = jax.jit(jax.grad(loss), compiler_options=options)(variables["params"], x)
    scale = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(plain))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6 * scale), tuned, plain)


def test_an_option_that_xla_does_not_know_is_not_given(monkeypatch, unasked):
    monkeypatch.setattr(compiler, "CPU_STEP", {"xla_cpu_of_next_year": "yes"})
    assert compiler.step_options(make_mesh(devices=1)) is None


def test_memory_is_kept_where_the_c_library_can(monkeypatch):
    if sys.platform.startswith("linux"):
        assert allocator.keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocator.keep_freed_memory() is False
