"""Refuses a version of JAX that computes wrong numbers on this machine.

jax 0.10.2 does so on a CPU, without an error (jax issue 39103: sums over the rows of a product). So a few small
programs, compiled as a step of training is, are compared with NumPy in float64. That takes half a second, once for
each machine and version of JAX: what passed is noted in the folder of compiled programs.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import pathlib
import platform
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jax.sharding import Mesh

from fer_jax.engine.compiler import compilation_cache, jit_for, platform_of, step_options
from fer_jax.engine.mesh import device_name
from fer_jax.errors import UserError
from fer_jax.storage import in_bucket

GOOD = ("0.10.1", "0.12.0.1")  # versions of JAX that pass
TOLERANCE = 1e-3  # of the largest value. Rounding gives 1e-6, and up to 3e-4 where products are taken in TF32

# By what they compute: the shapes of the arguments, the function for JAX and the same for NumPy.
Program = tuple[tuple[tuple[int, ...], ...], Callable[..., Any], Callable[..., Any]]


def check_arithmetic(mesh: Mesh) -> None:
    """Raises UserError if programs for the devices of the mesh do not give the numbers that NumPy gives."""
    facts = {
        "jax": jax.__version__,
        "jaxlib": jaxlib.version.__version__,
        "machine": [platform.node(), device_name(), platform_of(mesh)],
        "options": [step_options(mesh), os.environ.get("XLA_FLAGS")],
    }
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    folder = compilation_cache()
    passed = pathlib.Path(folder, f"self_check_{digest[:16]}") if folder and not in_bucket(folder) else None
    if passed and passed.exists():
        return
    if wrong := _wrong(mesh):
        other = next(version for version in GOOD if version != jax.__version__)
        raise UserError(
            f"jax {jax.__version__} with jaxlib {facts['jaxlib']} computes wrong numbers on {device_name()} "
            f"({'; '.join(wrong)}): install another version, pip install jax=={other} jaxlib=={other}"
        )
    if passed:
        try:
            passed.parent.mkdir(parents=True, exist_ok=True)
            passed.touch()
        except OSError:  # a folder that cannot be written: the next run checks again
            return


def _wrong(mesh: Mesh) -> list[str]:
    """Returns which programs fail, and by how much of their largest value."""
    device, random = mesh.local_devices[0], np.random.default_rng(0)
    arguments = {
        name: [random.standard_normal(shape).astype(np.float32) for shape in shapes]
        for name, (shapes, _, _) in PROGRAMS.items()
    }

    def error(name: str) -> float:
        _, function, reference = PROGRAMS[name]
        with jax.default_matmul_precision("highest"):
            computed = jit_for(mesh, function)(*jax.device_put(arguments[name], device))
        expected = reference(*(x.astype(np.float64) for x in arguments[name]))
        largest = max(np.abs(x).max() for x in expected)
        pairs = zip(jax.device_get(computed), expected, strict=True)
        return max(np.abs(ours - theirs).max() for ours, theirs in pairs) / largest

    with concurrent.futures.ThreadPoolExecutor() as threads:  # XLA compiles without holding Python's lock
        errors = dict(zip(PROGRAMS, threads.map(error, PROGRAMS), strict=True))
    return [f"{name}: off by {value:.2g}" for name, value in errors.items() if not value < TOLERANCE]


def _convolved(images: Any, kernel: Any) -> Any:
    """Returns a convolution [B, H, W, C], and the gradient of half its squared norm with respect to the kernel."""
    numbers = ("NHWC", "HWIO", "NHWC")

    def loss(kernel: Any) -> Any:
        y = jax.lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=numbers)
        return (y**2).sum() / 2, y

    gradient, y = jax.grad(loss, has_aux=True)(kernel)
    return y, gradient


def _convolved_reference(images: Any, kernel: Any) -> Any:
    patches = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (1, 2))
    y = np.einsum("bhwcij,ijco->bhwo", patches, kernel)
    return y, np.einsum("bhwcij,bhwo->ijco", patches, y)


def _scanned(rows: Any, matrix: Any) -> Any:
    """Returns the states [T, F] of a recurrent layer."""

    def step(state: Any, row: Any) -> Any:
        state = jnp.maximum(state @ matrix / 3 + row, 0)
        return state, state

    return [jax.lax.scan(step, jnp.zeros_like(rows[0]), rows)[1]]


def _scanned_reference(rows: Any, matrix: Any) -> Any:
    states = [np.zeros_like(rows[0])]
    for row in rows:
        states.append(np.maximum(states[-1] @ matrix / 3 + row, 0))
    return [np.stack(states[1:])]


PROGRAMS: dict[str, Program] = {
    "sums over rows of a product": (
        ((40_000, 3), (3, 3)),
        lambda rows, matrix: [jax.vmap(lambda row: ((matrix @ row) ** 2).sum())(rows)],
        lambda rows, matrix: [((rows @ matrix.T) ** 2).sum(1)],
    ),
    "sums over columns of a product": (
        ((300, 70), (70, 130)),
        lambda a, b: [jnp.maximum(a @ b, 0).sum(0)],
        lambda a, b: [np.maximum(a @ b, 0).sum(0)],
    ),
    "convolution and its gradient": (((4, 10, 10, 16), (3, 3, 16, 32)), _convolved, _convolved_reference),
    "states of a scan": (((20, 8), (8, 8)), _scanned, _scanned_reference),
    "vectorized mean and maximum": (
        ((64, 500, 3),),
        lambda x: [jax.vmap(lambda rows: rows.mean(1) ** 2 + rows.max(1), in_axes=2)(x)],
        lambda x: [(x.mean(1) ** 2 + x.max(1)).T],
    ),
}
