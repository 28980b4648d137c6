"""What XLA is told about the programs it compiles. Only CPUs need telling; results stay the same up to rounding."""

from __future__ import annotations

import functools

import jax
from jax.sharding import Mesh

from fer_jax.training.sharding import on_cpu

Options = dict[str, str | int] | None

# Convolutions to Eigen, whose 64-channel ones take half the time of YNNPACK's in jax 0.10; the rest as it was.
CPU_STEP = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"}
# A large program that runs once, like drawing the parameters: optimising it takes ten times its worth.
CPU_ONCE = {"xla_backend_optimization_level": 0}


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
