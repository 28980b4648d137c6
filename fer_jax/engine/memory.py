"""Turns out-of-memory failures into one-line errors.

A CPU has no memory of its own: the system would kill the process without a message, so programs are checked before
they run. An accelerator reports an error, which is translated.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from fer_jax.engine.mesh import memory_limit, on_cpu
from fer_jax.errors import UserError
from fer_jax.parsing import machine_memory

SHARE = 0.95  # of the memory of a machine that a program may take


def check_program(program: Any, arguments: tuple[Any, ...], mesh: Mesh, advice: str) -> None:
    """Raises UserError if a program needs more memory than the machine has; on CPUs only.

    Args:
        program: a jitted function. It is compiled here, and the call that follows reuses that.
        arguments: of the call.
        mesh: the devices.
        advice: what to change, for the message.
    """
    if not on_cpu(mesh):
        return
    needs = program.lower(*arguments).compile().memory_analysis()
    if needs is not None:  # else the backend does not tell
        own = needs.temp_size_in_bytes + needs.output_size_in_bytes - needs.alias_size_in_bytes
        needed, there = (own + needs.argument_size_in_bytes) * len(mesh.local_devices), machine_memory()
        if needed > SHARE * there:
            raise UserError(f"not enough memory: {_gib(needed)} of {_gib(there)} in this machine are needed; {advice}")


def check_parameters(count: int, mesh: Mesh) -> None:
    """Raises UserError if a device cannot hold so many float32 parameters, their gradients and two moments of them."""
    needed, there = 16 * count, memory_limit(mesh) or machine_memory()
    if needed > SHARE * there:
        raise UserError(
            f"not enough memory: training {count:,} parameters takes {_gib(needed)} at least, and there are "
            f"{_gib(there)}; make the network smaller (config.model)"
        )


@contextlib.contextmanager
def explained(mesh: Mesh, advice: str) -> Iterator[None]:
    """Turns running out of memory inside the `with` block into one line that ends with `advice`."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        text = " ".join(str(error).split())
        if not (isinstance(error, MemoryError) or re.search("RESOURCE_EXHAUSTED|[Oo]ut of memory", text)):
            raise
        limit = memory_limit(mesh)
        there = f"the {_gib(limit)} of each device" if limit else "what is free"
        raise UserError(f"not enough memory: more than {there} was requested; {advice}") from error


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
