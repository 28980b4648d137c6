"""Memory that is not there: one line in place of a stack trace from XLA, or of a process that the system kills."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from fer_jax.data.sources.on_disk import machine_memory
from fer_jax.engine.mesh import memory_limit, on_cpu
from fer_jax.errors import UserError

Config = Any  # an ml_collections.ConfigDict, whose fields have no static types
SHARE = 0.95  # of a machine's memory that a program may take: the system has the rest


def check_memory(program: Any, arguments: tuple[Any, ...], mesh: Mesh, config: Config) -> None:
    """Refuses a program of training that needs more memory than the machine has, before it runs; for CPUs.

    There the system would kill the process without a word. An accelerator says so by itself (see `explained`). The
    program is compiled here, and the call that follows finds it.

    Args:
        program: a jitted function.
        arguments: that it will be called with.
        mesh: where it runs.
        config: the run's, to name what makes it smaller.

    Raises:
        UserError: with what the program asks for and what there is.
    """
    if lacking := _lacking(program, arguments, mesh):
        raise UserError(_advice(config, lacking))


def check_evaluation(program: Any, arguments: tuple[Any, ...], mesh: Mesh, batch_size: int) -> None:
    """The same for a program of evaluation, whose memory `batch_size` decides."""
    if lacking := _lacking(program, arguments, mesh):
        raise UserError(_of_evaluation(batch_size, lacking))


def _lacking(program: Any, arguments: tuple[Any, ...], mesh: Mesh) -> str:
    """Says what a program asks for and what there is; empty where it fits."""
    if not on_cpu(mesh):
        return ""
    needs = program.lower(*arguments).compile().memory_analysis()
    if needs is None:  # a backend that does not tell
        return ""
    own = needs.temp_size_in_bytes + needs.output_size_in_bytes - needs.alias_size_in_bytes
    asked = (own + needs.argument_size_in_bytes) * len(mesh.local_devices)
    there = machine_memory()
    return f"asks for {_gib(asked)} of the {_gib(there)} of memory of this machine" if asked > SHARE * there else ""


def check_batches(config: Config, picture: Sequence[int], mesh: Mesh, training: bool = True) -> None:
    """Refuses a batch whose pictures alone are more than the machine holds, before they are gathered; for CPUs.

    Args:
        config: the run's.
        picture: [H, W, C] of the pictures as stored, a byte a value; the program has them as float32 as well.
        mesh: where the batches go.
        training: whether it trains; else the batches of training may be a larger machine's.

    Raises:
        UserError: with the field, what its pictures take and what there is.
    """
    if not on_cpu(mesh):
        return
    bytes_each, there = math.prod(picture) + 4 * config.data.image_size**2 * picture[-1], machine_memory()
    for field in ("train", "evaluation") if training else ("evaluation",):
        size = config[field].batch_size
        asked = size * bytes_each / jax.process_count()
        if asked > SHARE * there:
            raise UserError(
                f"not enough memory: the pictures of config.{field}.batch_size={size} take {_gib(asked)} of the "
                f"{_gib(there)} of memory of this machine; give a smaller one"
            )


@contextlib.contextmanager
def explained(mesh: Mesh, config: Config, training: bool = True) -> Iterator[None]:
    """Turns a device that runs out of memory inside the `with` block into one line that says what makes it do.

    Args:
        mesh: where the block runs.
        config: the run's, to name what makes it smaller.
        training: whether the block trains; else it evaluates, and no other field matters.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        text = " ".join(str(error).split())
        if not (isinstance(error, MemoryError) or re.search("RESOURCE_EXHAUSTED|[Oo]ut of memory", text)):
            raise
        amount = re.search(r"(?:allocat\w*|for|of) (\d[\d.]* ?(?:bytes|[KMGT]i?B)\b)", text)
        limit = memory_limit(mesh)
        there = f"the {_gib(limit)} of each device" if limit else "what is free"
        wanted = f"asks for {amount.group(1)} more" if amount else "asks for more"
        raise UserError(_advice(config, f"{wanted} than fits into {there}", training)) from error


def _advice(config: Config, what: str, training: bool = True) -> str:
    if not training:
        return _of_evaluation(config.evaluation.batch_size, what)
    path = "" if config.data.path in ("stream", "disk") else ", or set config.data.path=stream"
    return (
        f"not enough memory: with config.train.batch_size={config.train.batch_size} the program {what}; give a smaller "
        f"one (also config.evaluation.batch_size={config.evaluation.batch_size}), more micro-batches than "
        f"config.train.accumulate={config.train.accumulate}{path}"
    )


def _of_evaluation(batch_size: int, what: str) -> str:
    return f"not enough memory: with config.evaluation.batch_size={batch_size} the program {what}; give a smaller one"


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
