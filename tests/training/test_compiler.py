"""What XLA and the C library are told on a CPU: the same results, and nothing where they do not know it."""

import functools
import mmap
import pathlib
import platform
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from fer_jax.engine import allocator, compiler, self_check
from fer_jax.engine.mesh import make_mesh
from fer_jax.errors import UserError
from fer_jax.nn.resnet import BasicBlock

ROOT = pathlib.Path(__file__).resolve().parents[2]


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


def test_large_buffers_lie_in_huge_pages():
    """The kernel's own count, of a process that has nothing else in them."""
    setting = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not (setting.exists() and "[never]" not in setting.read_text() and platform.libc_ver()[0] == "glibc"):
        pytest.skip("huge pages on demand are a matter of Linux with glibc, and switched on by the system")
    if mmap.PAGESIZE != allocator.SMALL_PAGES or allocator._strict():
        pytest.skip("this system's pages are large already, or it counts memory when it is asked for")
    program = """
        from fer_jax.engine.allocator import keep_freed_memory
        assert keep_freed_memory()
        for _ in range(2):  # the second lies where the first was
            buffer = b"1" * (64 << 20)  # NumPy asks for huge pages itself
            lines = open("/proc/self/smaps_rollup").read().splitlines()
            print(next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages")))
            del buffer
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert all(int(kilobytes) >= 56 << 10 for kilobytes in found.stdout.split()), found.stdout


def test_a_jax_that_computes_wrong_numbers_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(self_check, "compilation_cache", lambda: str(tmp_path))
    mesh = make_mesh(devices=1)
    name, (shapes, function, expected) = next(iter(self_check.PROGRAMS.items()))
    wrong = shapes, lambda *arguments: [function(*arguments)[0].at[-1].add(1.0)], expected
    with monkeypatch.context() as planted:
        planted.setitem(self_check.PROGRAMS, name, wrong)
        for _ in range(2):  # what failed is not noted
            with pytest.raises(UserError, match=f"jax {jax.__version__} .*{name}: off by .*pip install jax=="):
                self_check.check_arithmetic(mesh)
    self_check.check_arithmetic(mesh)
    monkeypatch.setitem(self_check.PROGRAMS, name, wrong)
    self_check.check_arithmetic(mesh)  # what passed is
    for change in ((jax, "__version__", "0.99"), (self_check, "step_options", lambda _: {"another": "option"})):
        with monkeypatch.context() as other:
            other.setattr(*change)  # another version or option is not
            with pytest.raises(UserError, match="computes wrong numbers"):
                self_check.check_arithmetic(mesh)
