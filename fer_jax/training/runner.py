"""Runs the compiled training step on batches from device memory or from the host: the same batches either way."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fer_jax.config.steps import size_at
from fer_jax.data.sources.clips import ClipSample
from fer_jax.data.sources.pipeline import STREAM_AHEAD, Stream, index_batches
from fer_jax.data.sources.rows import mark_valid, take_rows
from fer_jax.data.sources.source import Source
from fer_jax.engine.compiler import jit_for, platform_of
from fer_jax.engine.memory import check_program
from fer_jax.engine.mesh import put_indices, put_replicated, put_rows, replicated, sharded
from fer_jax.training.setup import Setup, memory_advice
from fer_jax.training.state import TrainState
from fer_jax.training.step import Metrics, partner_rows, train_step, with_partners


class StepRunner:
    """Runs training steps from `start_step` on.

    Attributes:
        waited: seconds spent waiting for data.
    """

    def __init__(self, setup: Setup, start_step: int):
        self.waited = 0.0
        self._setup = setup
        self._checked: set[tuple[int, int]] = set()  # (image size, steps) of programs that fit into memory
        config, source, instances = setup.config, setup.train, setup.instances
        labels = source.arrays["label"] if config.data.balanced_sampling else None
        if instances is None:
            batches = index_batches(len(source), config.train.batch_size, config.seed, labels=labels)
        else:
            labels = None if labels is None else labels[instances.row]
            batches = index_batches(len(instances), config.train.batch_size, config.seed, labels=labels)
            batches = batches.map_with_index(lambda step, rows: instances.draw(rows, config.seed, step))
        self._step, self._seed = start_step, put_replicated(setup.mesh, np.int32(config.seed))
        self._programs = {stage.size: training_program(setup.at_size(stage.size)) for stage in setup.stages}
        if setup.resident:
            # Rows come from device memory inside the program; the host sends indices only.
            self._data = put_replicated(setup.mesh, dict(source.arrays) | source.shown_frames)
            ahead = max(STREAM_AHEAD, 2 * setup.steps_per_dispatch)  # for the dispatch that waits and the next one
            self._batches: Stream[Any] = Stream(batches, start_step, lambda indices: indices, ahead)
        else:
            self._batches = Stream(batches, start_step, functools.partial(_put_batch, setup.mesh, source))

    def run(self, state: TrainState, most: int) -> tuple[TrainState, Metrics, int]:
        """Runs up to `most` steps in one dispatch, which must not cross the end of a stage.

        Returns:
            The new state, the metrics of each step [steps], which are on their way to the host, and the number of
            steps made: one or `steps_per_dispatch`, so that only two programs are compiled.
        """
        several = self._setup.steps_per_dispatch if self._setup.resident else 1
        count = several if several <= most else 1
        began = time.perf_counter()
        taken = [self.next_batch() for _ in range(count)]
        self.waited += time.perf_counter() - began
        if self._setup.resident:
            indices = put_indices(self._setup.mesh, jax.tree.map(lambda *steps: np.stack(steps), *taken))
            data = (self._seed, self._data, indices)
        else:
            data = (self._seed, taken[0])
        size = size_at(self._setup.stages, self._step)
        run = self._programs[size]
        if (size, count) not in self._checked:
            check_program(run, (state, *data), self._setup.mesh, memory_advice(self._setup.config))
            self._checked.add((size, count))
        state, metrics = run(state, *data)
        self._step += count
        for values in metrics.values():
            values.copy_to_host_async()  # they are on the host when they are read
        return state, metrics, count

    def next_batch(self) -> Any:
        """Returns the program's argument for the next step: a batch, or its row indices if the data are resident."""
        return next(self._batches)

    def close(self) -> None:
        """Ends the threads that prepare batches."""
        self._batches.close()

    def programs(self) -> int:
        """Returns how many programs were compiled: at most two for each image size."""
        return sum(run._cache_size() for run in self._programs.values())


def training_program(setup: Setup, platform: str = "") -> Any:
    """Returns the compiled steps of a setup: (state, seed, data, indices) -> (state, metrics [steps]).

    Streamed, its arguments are (state, seed, batch). The seed is an argument, so that all seeds of an experiment share
    a compiled program. The state is donated: the new one takes its memory. `platform` is that of `jit_for`.
    """
    mesh = setup.mesh
    whole, rows = replicated(mesh), sharded(mesh)
    scan = (platform or platform_of(mesh)) != "cpu"

    def resident(state: TrainState, seed: jax.Array, data: Any, indices: Any) -> tuple[TrainState, Metrics]:
        partners = functools.partial(partner_rows, dataclasses.replace(setup.task, seed=seed))
        found = partners if setup.task.method.partners else None
        return resident_steps(seeded_step(setup, seed), rows, scan, state, data, indices, found)

    def streamed(state: TrainState, seed: jax.Array, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        state, metrics = seeded_step(setup, seed)(state, mark_valid(batch))
        return state, jax.tree.map(lambda value: value[None], metrics)

    function: Any = resident if setup.resident else streamed
    places = (whole, whole, whole, sharded(mesh, 1)) if setup.resident else (whole, whole, rows)
    return jit_for(mesh, function, platform=platform, in_shardings=places, out_shardings=whole, donate_argnums=0)


def seeded_step(
    setup: Setup, seed: jax.Array
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]:
    """Returns the step of a setup with the seed [] as a traced value."""
    train, task = setup.config.train, dataclasses.replace(setup.task, seed=seed)
    return functools.partial(
        train_step, task, setup.tx, setup.schedule, accumulate=train.accumulate, ema_decay=train.ema_decay
    )


def resident_steps(
    step: Any, rows: Any, scan: bool, state: TrainState, data: Any, indices: Any, partners: Any = None
) -> tuple[TrainState, Metrics]:
    """Runs one step for each row of `indices` (a tree of [steps, B, ...]) on data in device memory.

    `rows` is the sharding of a batch; `partners` maps (state, batch) to the rows of the batch's partners.
    """

    def taken(batch_rows: Any) -> dict[str, jax.Array]:
        return mark_valid(jax.lax.with_sharding_constraint(take_rows(data, batch_rows), rows))

    def one(state: TrainState, batch_rows: Any) -> tuple[TrainState, Metrics]:
        batch = taken(batch_rows)
        return step(state, with_partners(batch, taken(partners(state, batch))) if partners else batch)

    steps = len(jax.tree.leaves(indices)[0])
    if scan and steps > 1:
        return jax.lax.scan(one, state, indices)
    # Not a scan on a CPU: XLA's convolutions are far slower inside loops there.
    records = []
    for number in range(steps):
        state, metrics = one(state, jax.tree.map(lambda x, n=number: x[n], indices))
        records.append(metrics)
    return state, jax.tree.map(lambda *values: jnp.stack(values), *records)


def _put_batch(mesh: Mesh, source: Source, indices: np.ndarray | ClipSample) -> dict[str, jax.Array]:
    """Gathers on the host what `take_rows` gathers on the device."""
    if not isinstance(indices, ClipSample):
        return put_rows(mesh, source.arrays, indices)
    every = np.arange(len(indices.row))
    return (
        put_rows(mesh, source.arrays, indices.row)
        | put_rows(mesh, source.shown_frames, np.maximum(indices.frame, 0))
        | put_rows(mesh, {"frame_mask": indices.frame >= 0}, every)
    )
