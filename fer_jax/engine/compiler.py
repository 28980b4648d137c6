"""How programs are written for a device and what XLA is told when it compiles them.

Only CPUs need telling; results stay the same up to rounding. Of the options for a GPU or a TPU none is given: which of
them exist, and what they do, changes from one version of XLA to the next, and its own choice is made for convolutions
like these.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from fer_jax.engine.mesh import on_cpu
from fer_jax.nn.lowering import traced_for

Options = dict[str, str | int] | None

# Convolutions to Eigen, whose 64-channel ones take half the time of YNNPACK's in jax 0.10; the rest as it was.
CPU_STEP = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"}
# A large program that runs once, like drawing the parameters: optimising it takes ten times its worth.
CPU_ONCE = {"xla_backend_optimization_level": 0}


def program(mesh: Mesh, function: Callable[..., Any], *, platform: str = "", **options: Any) -> Any:
    """`jax.jit` of something that runs at every step, in the form that suits the devices of the mesh.

    Args:
        mesh: the devices.
        function: takes positional arguments only.
        platform: write it for devices of this kind instead, to read the program: it cannot run on this mesh.
        options: of `jax.jit`.
    """
    written = traced_for(platform or platform_of(mesh), function)
    return jax.jit(written, compiler_options=step_options(mesh), **options)


def platform_of(mesh: Mesh) -> str:
    """The kind of device that the mesh is made of: 'cpu', 'gpu' or 'tpu'."""
    return mesh.devices.flat[0].platform


def step_options(mesh: Mesh) -> Options:
    """Compiler options for a program that runs at every step; None for XLA's own choice."""
    return dict(CPU_STEP) if on_cpu(mesh) and _cpu_knows_step_options() else None


def once_options(mesh: Mesh) -> Options:
    """Compiler options for a program that runs once."""
    return dict(CPU_ONCE) if on_cpu(mesh) else None


@functools.cache
def _cpu_knows_step_options() -> bool:
    """Whether this XLA has the options: they are experimental, and an unknown one is an error."""
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            jax.jit(lambda x: x, compiler_options=dict(CPU_STEP)).lower(0.0).compile()
    except (jax.errors.JaxRuntimeError, ValueError):
        return False
    return True
