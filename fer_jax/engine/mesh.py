"""Devices, meshes and shardings, and what the main process does for all processes (see hosts.py)."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fer_jax.errors import UserError, first_line


def is_main() -> bool:
    """Whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def make_mesh(platform: str = "auto", devices: int = 0) -> Mesh:
    """Returns a mesh with the one axis `data` over the devices asked for (0: all of the platform)."""
    try:
        everything = jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX_PLATFORMS names a missing one
        raise UserError(f"JAX finds no device ({first_line(error)}); unset JAX_PLATFORMS, or set it to cpu") from error
    try:
        there = everything if platform == "auto" else jax.devices(platform)
    except RuntimeError as error:
        kinds = sorted({d.platform for d in everything})
        raise UserError(
            f"config.train.platform={platform}: no such device here (found: {', '.join(kinds)}); "
            "install JAX for it, or set config.train.platform=auto"
        ) from error
    if devices and jax.process_count() > 1:
        raise UserError(f"config.train.devices={devices}: with several processes all devices are used; give 0")
    if devices > len(there):
        raise UserError(f"config.train.devices={devices}, but there are {len(there)}; give 0 for all of them")
    return Mesh(np.asarray(there[: devices or len(there)]), ("data",))


def check_batch(mesh: Mesh, batch_size: int, accumulate: int) -> None:
    """Raises UserError if the devices cannot share a batch equally."""
    parts = mesh.size * accumulate
    if batch_size % parts:
        below, above = batch_size // parts * parts, -(-batch_size // parts) * parts
        near = f"{below} or {above}" if below else f"{above}"
        micro = f" in {accumulate} micro-batches" if accumulate > 1 else ""
        devices = f"{mesh.size} devices{micro}"
        raise UserError(f"config.train.batch_size={batch_size} cannot be shared by {devices}; give {near}")


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Sharding of an array whose dimension `axis` is the batch."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def put_replicated(mesh: Mesh, tree: Any) -> Any:
    """Copies a tree of host arrays to every device; every process passes the same values."""
    return _put(replicated(mesh), tree)


def put_indices(mesh: Mesh, indices: Any) -> Any:
    """Places a tree of indices [steps, B, ...], the same on every process, sharded over their second dimension."""
    return _put(sharded(mesh, 1), indices)


def _put(where: NamedSharding, tree: Any) -> Any:
    if jax.process_count() == 1:
        return jax.device_put(tree, where)

    def put(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, where, lambda index: x[index])

    return jax.tree.map(put, tree)


def put_rows(mesh: Mesh, arrays: Mapping[str, np.ndarray], indices: np.ndarray) -> dict[str, jax.Array]:
    """Gathers rows of host arrays into a batch sharded over `data`; a process reads only its own rows.

    Indices [B, ...] give arrays [B, ..., *shape of a row].
    """
    where = sharded(mesh)
    parts = list(dict.fromkeys(_span(index, len(indices)) for index in _local_parts(mesh, len(indices))))
    mine = np.concatenate([indices[begin:end] for begin, end in parts])
    first = dict(zip(parts, np.cumsum([0, *(end - begin for begin, end in parts)]).tolist(), strict=False))

    def put(source: np.ndarray) -> jax.Array:
        rows = source[mine]  # once for all devices: pictures on disk are decoded by all threads

        def part(index: Any) -> np.ndarray:
            begin, end = _span(index[0], len(indices))
            place = first[begin, end]
            return rows[place : place + end - begin]

        return jax.make_array_from_callback((len(indices), *rows.shape[1:]), where, part)

    return {name: put(source) for name, source in arrays.items()}


def _local_parts(mesh: Mesh, count: int) -> list[slice]:
    """Returns the parts of a batch of `count` rows that the devices of this process hold."""
    return [index[0] for index in sharded(mesh).addressable_devices_indices_map((count,)).values() if index]


def _span(part: slice, count: int) -> tuple[int, int]:
    begin, end, _ = part.indices(count)
    return begin, end


def on_cpu(mesh: Mesh) -> bool:
    """Whether the mesh is made of CPU devices."""
    return mesh.devices.flat[0].platform == "cpu"


def device_name() -> str:
    """Returns what this process computes on, e.g. '4 x NVIDIA H100' or 'cpu (x86_64, 2 cores)'."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return f"cpu ({platform.machine()}, {cores} core{'s' if cores != 1 else ''})"
    return f"{jax.device_count()} x {device.device_kind}"


def memory_limit(mesh: Mesh) -> int | None:
    """Returns the memory of one device in bytes; None if it does not tell, as a CPU."""
    stats = None if on_cpu(mesh) else mesh.devices.flat[0].memory_stats()
    return stats.get("bytes_limit") if stats else None


def on_main(function: Callable[[], Any]) -> Any:
    """Runs `function` on the main process while the others wait; if it fails there, all raise an error."""
    if jax.process_count() == 1:
        return function()
    from jax.experimental import multihost_utils

    result, failure = None, None
    if is_main():
        try:
            result = function()
        except Exception as error:  # raised below, once the others know: they would wait for ever
            failure = error
    failed = multihost_utils.broadcast_one_to_all(np.int32(failure is not None))
    if failure is not None:
        raise failure
    if failed:
        raise UserError("process 0 failed: see its error message")
    return result


def told_by_main(data: bytes) -> bytes:
    """Returns the `data` of the main process on all processes; all pass the same number of bytes."""
    from jax.experimental import multihost_utils

    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(np.frombuffer(data, np.uint8)), np.uint8))


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any process."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))
