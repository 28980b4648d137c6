"""Who makes the steps of the loop: one run on all devices, or several seeds side by side, each on a device of its own.

Small batches do not fill several devices: split over them, a step is mostly waiting. A device that trains a run of its
own waits for nobody. The lanes are one program all the same (`jax.shard_map`): each device runs the plain step of a
run alone, on its own state, batches and seed, and nothing passes between them. They are not vmapped: convolutions
with a kernel per lane become grouped ones, which collapse on a CPU (docs/performance.md).
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from fer_jax.config.fields import Config
from fer_jax.config.protocol import ALL
from fer_jax.config.resolutions import size_at
from fer_jax.data.sources.pipeline import Stream, index_batches
from fer_jax.engine.compiler import program
from fer_jax.engine.memory import check_memory
from fer_jax.engine.mesh import on_cpu, put_replicated, replicated
from fer_jax.errors import UserError
from fer_jax.training.feed import Feed, indices_ahead, resident_steps, seeded_step
from fer_jax.training.setup import Setup
from fer_jax.training.state import TrainState
from fer_jax.training.step import Metrics

Records = list[dict[str, float]]  # the metrics of some steps, in order
AXIS = "seeds"


def seeds_at_once(config: Config, setup: Setup) -> tuple[int, str]:
    """Returns how many of several seeds are trained side by side, and why, in words.

    Raises:
        UserError: where `config.train.seeds_together` asks for more than there is to have.
    """
    wanted, devices = config.train.seeds_together, setup.mesh.size
    if wanted == 1:
        return 1, "config.train.seeds_together=1"
    if wanted > devices:
        there = f"there are {devices} devices" if devices > 1 else "there is one device"
        raise UserError(
            f"config.train.seeds_together={wanted}, but {there}: each seed takes one; give 0 to {devices}, "
            "or 0 for as many as is faster"
        )
    hindrance = _hindrance(config, setup)
    if wanted and hindrance:
        raise UserError(f"config.train.seeds_together={wanted}: {hindrance}; give 0 or 1")
    if hindrance:
        return 1, hindrance
    return min(wanted or devices, config.seeds), f"a device each, of {devices}"


def _hindrance(config: Config, setup: Setup) -> str:
    """Says what keeps seeds from being trained side by side; empty where nothing does."""
    reasons = {
        "there is one device": setup.mesh.size == 1,
        "several processes train one run together": jax.process_count() > 1,
        "each seed trains every fold": config.fold == ALL,
        "each seed draws frames of its own from the clips": setup.instances is not None,
        "each seed has objects of its own in front of the faces": config.data.occluded_copies,
        "the images are not in device memory": not setup.resident,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def of_seeds(setup: Setup, configs: Sequence[Config]) -> list[Setup]:
    """Returns the setups of runs that differ from that of `setup` in their seed alone; they share its data."""
    return [
        dataclasses.replace(setup, config=config, task=dataclasses.replace(setup.task, seed=config.seed))
        for config in configs
    ]


class Alone:
    """One run on all devices. What it carries is the state itself."""

    def __init__(self, feed: Feed):
        self._feed = feed

    @property
    def waited(self) -> float:
        """Seconds spent waiting for data."""
        return self._feed.waited

    def programs(self) -> int:
        """Returns how many programs were compiled."""
        return self._feed.programs()

    def carry(self, states: Sequence[TrainState]) -> TrainState:
        """Returns what `run` takes, made of the state of each run."""
        return states[0]

    def states(self, carried: TrainState) -> list[TrainState]:
        """Returns the state of each run."""
        return [carried]

    def whole(self, tree: Any) -> Any:
        """Returns a tree of one run as evaluation takes it: on all devices."""
        return tree

    def run(self, carried: TrainState, most: int) -> tuple[TrainState, Metrics, int]:
        """Makes up to `most` steps of each run in one dispatch; see `Feed.run`."""
        return self._feed.run(carried, most)

    def records(self, metrics: Metrics) -> list[Records]:
        """Returns the metrics of each step of each run, fetched from the device."""
        return [_by_step(jax.device_get(metrics))]

    def close(self) -> None:
        """Ends the threads that prepare batches."""
        self._feed.close()


class Lanes:
    """Several runs side by side, a device each, from `start_step` on; see `Alone` for the methods.

    What it carries is one state whose every array has a first dimension more, a row for each run, sharded over the
    devices.

    Args:
        setups: of `of_seeds`, with at least as many devices in their mesh.
        start_step: of the first step.
    """

    def __init__(self, setups: Sequence[Setup], start_step: int):
        self.waited = 0.0
        setup = setups[0]
        config, source = setup.config, setup.train
        self._setup = setup
        self._mesh = mesh = Mesh(setup.mesh.devices.flat[: len(setups)], (AXIS,))
        self._rows = NamedSharding(mesh, PartitionSpec(AXIS))
        self._where = [SingleDeviceSharding(device) for device in mesh.devices.flat]
        labels = source.arrays["label"] if config.data.balanced_sampling else None
        self._checked: set[tuple[int, int]] = set()  # sizes and numbers of steps whose program fits into memory
        self._batches: list[Stream[Any]] = [
            Stream(
                index_batches(len(source), config.train.batch_size, lane.config.seed, labels=labels),
                start_step,
                lambda indices: indices,
                indices_ahead(setup),
            )
            for lane in setups
        ]
        self._data = put_replicated(mesh, dict(source.arrays))
        self._seeds = jax.device_put(np.asarray([lane.config.seed for lane in setups], np.int32), self._rows)
        spec, whole = PartitionSpec(AXIS), PartitionSpec()

        def lanes(size: int) -> Any:
            return jax.shard_map(
                functools.partial(_lane, setup.at_size(size), not on_cpu(mesh)),
                mesh=mesh,
                in_specs=(spec, spec, whole, spec),
                out_specs=spec,
                check_vma=False,  # nothing passes between the lanes
            )

        self._step = start_step
        self._programs = {s.size: program(mesh, lanes(s.size), donate_argnums=0) for s in setup.stages}
        self._into_row = jax.jit(lambda tree: jax.tree.map(lambda x: x[None], tree))
        self._out_of_row = jax.jit(lambda tree: jax.tree.map(lambda x: x[0], tree))

    def programs(self) -> int:
        return sum(run._cache_size() for run in self._programs.values())

    def carry(self, states: Sequence[TrainState]) -> TrainState:
        rows = [self._into_row(jax.device_put(state, where)) for state, where in zip(states, self._where, strict=True)]

        def join(*parts: jax.Array) -> jax.Array:
            shape = (len(parts), *parts[0].shape[1:])
            return jax.make_array_from_single_device_arrays(shape, self._rows, list(parts))

        return jax.tree.map(join, *rows)

    def states(self, carried: TrainState) -> list[TrainState]:
        def row(number: int) -> TrainState:
            return jax.tree.map(lambda x: _shard(x, number), carried)

        return [self._out_of_row(row(number)) for number in range(len(self._where))]

    def whole(self, tree: Any) -> Any:
        return jax.device_put(tree, replicated(self._setup.mesh))

    def run(self, carried: TrainState, most: int) -> tuple[TrainState, Metrics, int]:
        several = self._setup.steps_per_dispatch
        count = several if several <= most else 1
        began = time.perf_counter()
        taken = [np.stack([next(batches) for _ in range(count)]) for batches in self._batches]
        self.waited += time.perf_counter() - began
        indices = jax.device_put(np.stack(taken), self._rows)  # [runs, steps, B]
        size = size_at(self._setup.stages, self._step)
        run = self._programs[size]
        if (size, count) not in self._checked:
            check_memory(run, (carried, self._seeds, self._data, indices), self._mesh, self._setup.config)
            self._checked.add((size, count))
        self._step += count
        carried, metrics = run(carried, self._seeds, self._data, indices)
        for values in metrics.values():
            values.copy_to_host_async()
        return carried, metrics, count

    def records(self, metrics: Metrics) -> list[Records]:
        fetched = jax.device_get(metrics)
        return [_by_step({k: v[number] for k, v in fetched.items()}) for number in range(len(self._where))]

    def close(self) -> None:
        for batches in self._batches:
            batches.close()


def _lane(setup: Setup, scan: bool, state: Any, seed: jax.Array, data: Any, indices: Any) -> Any:
    """The steps of one run on its own device: arrays have its row alone, [1, ...]."""
    state, indices = jax.tree.map(lambda x: x[0], (state, indices))
    # The batch stays where it is: on this lane's device.
    stepped = resident_steps(seeded_step(setup, seed[0]), PartitionSpec(), scan, state, data, indices)
    return jax.tree.map(lambda x: x[None], stepped)


def _shard(array: jax.Array, number: int) -> jax.Array:
    """Row `number` [1, ...] of an array whose rows are on a device each, where it is."""
    return next(shard.data for shard in array.addressable_shards if shard.index[0].start == number)


def _by_step(metrics: dict[str, Any]) -> Records:
    steps = len(next(iter(metrics.values())))
    return [{k: float(v[i]) for k, v in metrics.items()} for i in range(steps)]
