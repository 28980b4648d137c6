"""Images per second of a whole ResNet-18 training step: ours, plain Flax, and PyTorch where it is installed.

    python -m benchmarks.train_step --sizes=48,112,224 --repeats=7

A step is forward, backward, Adam's update and the update of the batch statistics of the same seven-class network on the
same images, which are on the device; in float32 on a CPU, on all available cores, and on an accelerator in bfloat16
with float32 parameters. `fer_jax` is the single step, `fer_jax, Feed` what a training run does: uint8 faces gathered,
scaled and augmented inside the program, the metrics of every step, and on an accelerator many steps per dispatch. Each
contestant has a process of its own, and they take turns; the medians are compared, and the best of PyTorch's variants
(`torch_resnet.py`). Adds a run to benchmarks/results/<device>.json.
"""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp

from benchmarks import flax_resnet, harness, machine, torch_resnet
from benchmarks.apart import Build, apart
from benchmarks.records import command_line
from benchmarks.turns import Run, markdown, medians, take_turns

SIZES = (48, 112, 224)
OURS, FEED, PLAIN = "fer_jax", "fer_jax, Feed", "plain Flax"
QUICK_BATCH = 4
CPU_TURN = 4  # steps
PLAIN_TURNS = 2  # plain Flax takes seconds per step at 48 pixels on a CPU: it has few turns there, of one step each


def measure(size: int, batch: int, repeats: int, with_torch: bool, data_dir: str) -> dict[str, Any]:
    """Returns one row of the table: every contestant on `batch` images of `size` pixels."""
    # On an accelerator a turn is a dispatch of many steps, so that each contestant waits for the device once. On a CPU
    # it is a few, because the first step after another contestant's turn finds cold caches.
    steps, slow = (harness.STEPS_PER_DISPATCH,) * 2 if machine.accelerated() else (CPU_TURN, 1)
    builds: dict[str, Build] = {
        OURS: functools.partial(ours, size, batch, steps),
        FEED: functools.partial(in_a_run, size, batch, steps, data_dir),
        PLAIN: functools.partial(plain, size, batch, slow),
    }
    if with_torch:
        examples = flax_resnet.examples(size, batch)
        ways = torch_resnet.ways("training", batch)
        builds |= {way: functools.partial(torch_resnet.trainer, way, *examples, steps) for way in ways}
    with apart(builds, needed=(OURS, FEED, PLAIN)) as (turns, ready, failed):
        seconds = take_turns(turns, repeats, None if machine.accelerated() else {PLAIN: min(PLAIN_TURNS, repeats)})
    each = {name: [s / (slow if name == PLAIN else steps) for s in times] for name, times in seconds.items()}
    return {
        "size": size,
        "batch": batch,
        "steps_per_turn": steps,
        "ready_seconds": ready,
        "milliseconds": {name: [round(1e3 * s, 2) for s in times] for name, times in each.items()},
        "images_per_second": {name: round(batch / s, 1) for name, s in medians(each).items()},
        "failed": failed,
    }


def ours(size: int, batch: int, steps: int) -> Run:
    """Returns a turn of the step of the baseline's network alone."""
    model, examples = flax_resnet.Ours(jnp.dtype(machine.compute_type())), flax_resnet.examples(size, batch)
    return flax_resnet.trainer(flax_resnet.training(model, *examples, machine.our_options()), steps)


def in_a_run(size: int, batch: int, steps: int, data_dir: str) -> Run:
    """Returns a turn of what a training run does."""
    return harness.training_run(harness.baseline_config(size, batch, data_dir), steps)


def plain(size: int, batch: int, steps: int) -> Run:
    """Returns a turn of the step of plain Flax."""
    model, examples = flax_resnet.PlainFlax(jnp.dtype(machine.compute_type())), flax_resnet.examples(size, batch)
    return flax_resnet.trainer(flax_resnet.training(model, *examples, None), steps)


def section(quick: bool = False, sizes: tuple[int, ...] = SIZES, repeats: int = 5) -> dict[str, Any]:
    """Returns {'rows': one per size}."""
    with harness.faces_folder() as folder:
        if quick:
            return {"rows": [measure(sizes[0], QUICK_BATCH, 1, False, folder)]}
        with_torch, batches = machine.has_torch(), flax_resnet.batches()
        return {"rows": [measure(size, batches[size], repeats, with_torch, folder) for size in sizes]}


def as_table(result: dict[str, Any]) -> str:
    """Returns the rows as Markdown: images per second."""
    rows = result["rows"]
    names = list(dict.fromkeys(name for row in rows for name in row["images_per_second"]))
    cells = [
        [f"{row['size']}x{row['size']}, {row['batch']}"]
        + [f"{row['images_per_second'][name]:,.1f}" if name in row["images_per_second"] else "" for name in names]
        for row in rows
    ]
    return markdown(["input, batch", *names], cells)


if __name__ == "__main__":
    command_line("train_step", __doc__, section, as_table, sizes=SIZES, repeats=5)
