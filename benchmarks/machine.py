"""The machine: its setup, the same for all benchmarks, and its description in their records."""

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
    """Keeps freed memory with the process and silences libraries; call it before the first computation."""
    logging.set_verbosity(logging.ERROR)
    keep_freed_memory()
    # On a GPU the contestants share its memory: none may reserve all of it.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def cores() -> int:
    """Returns the number of CPU cores that this process may use; JAX and PyTorch both use all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def accelerated() -> bool:
    """Returns whether JAX computes on an accelerator."""
    return jax.default_backend() != "cpu"


def compute_type() -> str:
    """Returns the type that all contestants compute in: that of `config.train.dtype='auto'`."""
    return "bfloat16" if accelerated() else "float32"


def our_options() -> Options:
    """Returns the compiler options of fer_jax's training step."""
    return step_options(make_mesh("auto", 1))


def device_name() -> str:
    """Returns the kind of an accelerator, or the CPU's model and cores, such as 'AMD EPYC, 2 cores'."""
    return jax.devices()[0].device_kind if accelerated() else f"{cpu_model()}, {cores()} cores"


def cpu_model() -> str:
    """Returns the name of the processor where the system knows it."""
    try:
        info = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def file_name(device: str) -> str:
    """Returns a device's name as a file name: 'AMD EPYC, 2 cores' is 'amd_epyc_2_cores'."""
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")


def versions() -> dict[str, str]:
    """Returns the versions that a run records, and that of PyTorch where it is installed."""
    return workdir.versions() | ({"torch": importlib.metadata.version("torch")} if has_torch() else {})


def has_torch() -> bool:
    """Returns whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def describe() -> dict[str, Any]:
    """Returns device, cores, compute type, versions and commit."""
    return {
        "device": device_name(),
        "backend": jax.default_backend(),
        "cores": cores(),
        "dtype": compute_type(),
        "versions": versions(),
        "commit": workdir.git_commit(),
    }
