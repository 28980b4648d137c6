"""The machine that a benchmark stands on: set up alike for all of them, and named in what they write."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
from typing import Any

import jax
from absl import logging

from fer_jax.engine.allocator import keep_freed_memory
from fer_jax.engine.compiler import Options, step_options
from fer_jax.engine.mesh import make_mesh
from fer_jax.runs import workdir

ROOT = pathlib.Path(__file__).resolve().parents[1]


def prepare() -> None:
    """Memory that stays with the process, no chatter; to be called before the first computation."""
    logging.set_verbosity(logging.ERROR)
    keep_freed_memory()
    # On a GPU the contestants share its memory: none may take all of it in advance.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def cores() -> int:
    """The CPU cores that this process may use; JAX and PyTorch both take all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def accelerated() -> bool:
    """Whether JAX computes on something other than the CPU."""
    return jax.default_backend() != "cpu"


def compute_type() -> str:
    """The type that networks compute in, on every side of a comparison: what `config.train.dtype='auto'` means here."""
    return "bfloat16" if accelerated() else "float32"


def our_options() -> Options:
    """The compiler options of fer_jax's training step."""
    return step_options(make_mesh("auto", 1))


def device_name() -> str:
    """One accelerator by its kind, or the CPU by its model with the number of cores, 'AMD EPYC, 2 cores'.

    Finer than what a run writes of its device: different CPUs must not share a file.
    """
    return jax.devices()[0].device_kind if accelerated() else f"{cpu_model()}, {cores()} cores"


def cpu_model() -> str:
    """The processor's own name where the system tells it."""
    try:
        info = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def file_name(device: str) -> str:
    """A device's name as a file has it: 'AMD EPYC, 2 cores' is 'amd_epyc_2_cores'."""
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")


def versions() -> dict[str, str]:
    """Those that a run writes, and PyTorch's where it is installed."""
    return workdir.versions() | ({"torch": importlib.metadata.version("torch")} if has_torch() else {})


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def describe() -> dict[str, Any]:
    """The head of an entry: device, cores, compute type, versions and commit."""
    return {
        "device": device_name(),
        "backend": jax.default_backend(),
        "cores": cores(),
        "dtype": compute_type(),
        "versions": versions(),
        "commit": workdir.git_commit(),
    }
