"""Milliseconds of a training step for each of several seeds: in turn, side by side on a device each, and vmapped.

    python -m benchmarks.seeds --seeds=2 --repeats=15

The same narrow ResNet-18 on the same synthetic faces, 48 pixels, through the programs of a real training: `Feed` on
one device, `Feed` over all devices (a batch divided among them), `Lanes` (`fer_jax/training/lanes.py`); and, for
comparison only, one program that is vmapped over the seeds on one device. On a CPU the devices are virtual, as many as
there are seeds, and share the cores. The contestants take turns and the medians are compared. Appends to
benchmarks/results/<device>.json, and writes seeds.md beside it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import machine
from benchmarks.records import command_line
from experiments.baseline import get_config
from fer_jax.data.sources.pipeline import index_batches
from fer_jax.data.sources.rows import mark_valid, take_rows
from fer_jax.engine.compiler import step_options
from fer_jax.runs.workdir import device_name
from fer_jax.training.feed import Feed
from fer_jax.training.lanes import Alone, Lanes, of_seeds
from fer_jax.training.setup import make_setup
from fer_jax.training.step import train_step

DEPTH, WIDTH, SIZE, BATCH = 18, 16, 48, 64
QUICK_DEPTH = 10
PATIENCE = 12.0  # seconds of steps after which a slow contestant has its median
IN_TURN, DIVIDED, SIDE_BY_SIDE, VMAPPED = (
    "one after another, one device",
    "one after another, the batch divided among the devices",
    "side by side, a device each",
    "vmapped, one device",
)

Step = Callable[[], None]  # makes one step of every seed that the contestant trains, to its end


def make_config(devices: int, depth: int) -> Any:
    """The baseline on the faces of its smoke variant, with a network of its own."""
    config = get_config("smoke")
    config.model.depth, config.model.width = depth, WIDTH
    config.data.image_size, config.train.batch_size = SIZE, BATCH
    config.train.devices = devices
    return config


def make_steps(seeds: int, depth: int) -> tuple[dict[str, Step], dict[str, int]]:
    """Returns the contestants, and how many seeds a call of each advances."""
    one, several = (make_setup(make_config(devices, depth)) for devices in (1, seeds))
    configs = []
    for seed in range(seeds):
        configs.append(make_config(seeds, depth))
        configs[-1].seed = seed

    def stepping(carrier: Any, states: list[Any]) -> Step:
        carried = carrier.carry(states)

        def step() -> None:
            nonlocal carried
            carried, metrics, _ = carrier.run(carried, 1)
            jax.block_until_ready((carried, metrics))

        return step

    class Vmapped:
        """All seeds in one program on one device, with a kernel for each in every convolution."""

        def __init__(self) -> None:
            data = {name: jnp.asarray(values) for name, values in one.train.arrays.items()}
            orders = [index_batches(len(one.train), BATCH, seed) for seed in range(seeds)]
            self._draw = lambda step: jnp.stack([jnp.asarray(order[step]) for order in orders])

            def lane(state: Any, seed: jax.Array, indices: jax.Array) -> Any:
                task = dataclasses.replace(one.task, seed=seed)  # pyright: ignore
                return train_step(task, one.tx, one.schedule, state, mark_valid(take_rows(data, indices)))

            self._run = jax.jit(jax.vmap(lane), donate_argnums=0, compiler_options=step_options(one.mesh))
            self._steps = 0

        def carry(self, states: list[Any]) -> Any:
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

        def run(self, carried: Any, _: int) -> tuple[Any, Any, int]:
            indices = self._draw(self._steps)
            self._steps += 1
            return *self._run(carried, jnp.arange(seeds), indices), 1

    lanes = of_seeds(several, configs)
    first = [dataclasses.replace(one, config=config).init for config in configs]
    steps = {
        IN_TURN: stepping(Alone(Feed(one, 0)), [one.init()]),
        DIVIDED: stepping(Alone(Feed(several, 0)), [several.init()]),
        SIDE_BY_SIDE: stepping(Lanes(lanes, 0), [lane.init() for lane in lanes]),
        VMAPPED: stepping(Vmapped(), [init() for init in first]),
    }
    return steps, {name: seeds if name in (SIDE_BY_SIDE, VMAPPED) else 1 for name in steps}


def measure(seeds: int, repeats: int, quick: bool = False) -> dict[str, Any]:
    """Compiles every contestant, then times a step of each per round."""
    machine.prepare()
    depth, repeats = (QUICK_DEPTH, 1) if quick else (DEPTH, repeats)
    steps, advanced = make_steps(seeds, depth)
    found = machine.versions()
    began: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            if sum(seconds[name]) > PATIENCE:
                continue
            start = time.perf_counter()
            step()
            taken = time.perf_counter() - start
            if turn:
                seconds[name].append(taken)
            else:
                began[name] = taken
    return {
        "seeds": seeds,
        "network": f"ResNet-{depth}, {WIDTH} channels",
        "size": SIZE,
        "batch": BATCH,
        "device": device_name(),
        "versions": {name: found[name] for name in ("python", "jax")},
        "first_call_seconds": {name: round(value, 1) for name, value in began.items()},
        "milliseconds_per_step_and_seed": {
            name: round(1e3 * statistics.median(values) / advanced[name], 2) for name, values in seconds.items()
        },
        "milliseconds": {name: [round(1e3 * value, 1) for value in values] for name, values in seconds.items()},
    }


def as_table(measured: dict[str, Any]) -> str:
    """The measurements as markdown; the first contestant is what the others are held against."""
    each = measured["milliseconds_per_step_and_seed"]
    named = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    title = (
        f"Training step of {measured['seeds']} seeds, {measured['network']}, {measured['size']} pixels, "
        f"batch {measured['batch']} ({measured['device']}; {named})."
    )
    lines = [title, "", "| how | ms per step and seed | speed against the first | first call, s |", "|---|---|---|---|"]
    for name, value in each.items():
        lines.append(
            f"| {name} | {value:.1f} | {each[IN_TURN] / value:.2f} | {measured['first_call_seconds'][name]:.1f} |"
        )
    return "\n".join(lines) + "\n"


def section(quick: bool = False, seeds: int = 2, repeats: int = 15) -> dict[str, Any]:
    """What `python -m benchmarks` stores, measured in a process of its own, which has a device for each seed."""
    flag = f"--xla_force_host_platform_device_count={seeds}"  # says nothing to other platforms
    environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()}
    code = f"import json; from benchmarks import seeds; print(json.dumps(seeds.measure({seeds}, {repeats}, {quick})))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=machine.ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    command_line("seeds", __doc__, section, as_table, page=True, seeds=2, repeats=15)
