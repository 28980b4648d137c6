"""How programs are traced for a device, and with which options XLA compiles them.

Only CPUs get options, which change results by no more than rounding. GPUs and TPUs get none: their options change from
one version of XLA to the next, and its defaults are made for convolutions like these.
"""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from fer_jax.engine.mesh import on_cpu
from fer_jax.nn.lowering import traced_for

Options = dict[str, str | int] | None

# Without convolutions: in jax 0.10 Eigen takes half the time of YNNPACK for those of 64 channels.
CPU_STEP: dict[str, str | int] = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
}
# For a large program that runs once, such as the initialization: optimizing it takes far longer than it saves.
CPU_ONCE = {"xla_backend_optimization_level": 0}


def jit_for(mesh: Mesh, function: Callable[..., Any], *, platform: str = "", **options: Any) -> Any:
    """`jax.jit` of a function that runs at every step, traced and compiled for the devices of the mesh.

    Args:
        mesh: the devices.
        function: takes positional arguments only.
        platform: trace for devices of this kind instead, to inspect the program; it cannot run on this mesh.
        options: of `jax.jit`.
    """
    traced = traced_for(platform or platform_of(mesh), function)
    return jax.jit(traced, compiler_options=step_options(mesh), **options)


def platform_of(mesh: Mesh) -> str:
    """Returns the kind of device in the mesh: 'cpu', 'gpu' or 'tpu'."""
    return mesh.devices.flat[0].platform


def step_options(mesh: Mesh) -> Options:
    """Returns compiler options for a program that runs at every step; None for XLA's defaults."""
    return dict(CPU_STEP) if on_cpu(mesh) and _cpu_knows_step_options() else None


def once_options(mesh: Mesh) -> Options:
    """Returns compiler options for a program that runs once; None for XLA's defaults."""
    return dict(CPU_ONCE) if on_cpu(mesh) else None


@functools.cache
def _cpu_knows_step_options() -> bool:
    """Whether this XLA has the options, which are experimental: an unknown one is an error."""
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            jax.jit(lambda x: x, compiler_options=dict(CPU_STEP)).lower(0.0).compile()
    except (jax.errors.JaxRuntimeError, ValueError):
        return False
    return True


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, so that a second start reaches its first step in seconds."""
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or pathlib.Path(
        os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"), "fer_jax", "compiled"
    )
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def compilation_cache() -> str:
    """Returns the folder of compiled programs; empty if none are kept."""
    return jax.config.jax_compilation_cache_dir or ""  # pyright: ignore
