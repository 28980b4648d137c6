"""Training from disk: how fast images arrive, and how long a step waits for them.

    python -m benchmarks.streaming

Generates JPEGs of 224 pixels (see benchmarks/reading.py), prepares them, and asks for shuffled batches as a training
run does: read, decoded and put on the device ahead of the step. First the feed alone, then a ResNet-18 that trains on
the batches. `waiting` is what the loop writes to timing.jsonl: the share of the time between two steps in which the
next batch was not ready. Writes streaming.md beside the file of the device.
"""

from __future__ import annotations

import pathlib
import platform
import tempfile
import time
from typing import Any

import jax
import numpy as np

from benchmarks.reading import SIDE, build, make_tree
from benchmarks.records import command_line
from experiments.baseline import get_config
from fer_jax.data.sources.on_disk import threads
from fer_jax.data.sources.pipeline import STREAM_AHEAD
from fer_jax.engine.compiler import use_compilation_cache
from fer_jax.engine.mesh import make_mesh, on_cpu
from fer_jax.training.runner import StepRunner
from fer_jax.training.setup import make_setup

PATHS = {"from disk": "disk", "in device memory": "auto"}
PICTURES = 1000
ON_CPU, ON_ACCELERATOR = 16, 256  # batch


def config_of(data_dir: str, path: str, batch: int) -> Any:
    """Returns the config of the ResNet-18 baseline on images of 224 pixels, with AffectNet's augmentation."""
    config = get_config("affectnet")
    config.data.dataset, config.data.holdout_fraction = "affectnet", 0.1
    config.data.data_dir, config.data.path = data_dir, path
    config.train.batch_size = batch
    return config


def feed_alone(data_dir: str, batch: int, seconds: float) -> float:
    """Returns the images per second of the feed when nothing is computed."""
    feed = StepRunner(make_setup(config_of(data_dir, "disk", batch)), 0)
    for _ in range(8):  # uses up the batches that were prepared ahead
        feed.next_batch()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        jax.block_until_ready(feed.next_batch())
        count += batch
    rate = count / (time.perf_counter() - began)
    feed.close()
    return rate


class Trainer:
    """A training run that makes steps when it is told to."""

    def __init__(self, data_dir: str, path: str, batch: int):
        setup = make_setup(config_of(data_dir, path, batch))
        self._feed, self._state, self._batch = StepRunner(setup, 0), setup.init(), batch
        self.steps(1)  # compiles

    def steps(self, count: int) -> tuple[float, float]:
        """Makes `count` steps; returns images per second and the share of waiting, as the loop measures them."""
        for _ in range(STREAM_AHEAD + 1):
            self._feed.next_batch()  # batches prepared during the other runs' turns would flatter this one
        began, waited, before = time.perf_counter(), self._feed.waited, None
        for _ in range(count):
            self._state, metrics, _ = self._feed.run(self._state, 1)
            if before is not None:
                jax.block_until_ready(before)  # one step computes, one waits, as in the loop
            before = metrics
        jax.block_until_ready(before)
        seconds = time.perf_counter() - began
        return count * self._batch / seconds, (self._feed.waited - waited) / seconds


def training(data_dir: str, batch: int, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Returns medians over rounds in which the runs take turns, so that a busy machine slows all of them alike."""
    runs = {name: Trainer(data_dir, path, batch) for name, path in PATHS.items()}
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seen[name].append(run.steps(steps))
    return {
        name: dict(zip(("images_per_second", "waiting"), np.median(values, axis=0).tolist(), strict=True))
        for name, values in seen.items()
    }


def section(quick: bool = False) -> dict[str, Any]:
    """Measures everything; `quick` does just enough to show that it runs."""
    use_compilation_cache()
    pictures, seconds, rounds, steps = (64, 0.2, 1, 1) if quick else (PICTURES, 3.0, 3, 3)
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        kib = make_tree(place / "tree", pictures)
        build(place / "tree", place / "data", 0)
        data = str(place / "data")
        batch = 4 if quick else ON_CPU if on_cpu(make_mesh()) else ON_ACCELERATOR
        feed = feed_alone(data, batch, seconds)
        trained = training(data, batch, rounds, steps)
    return {
        "pictures": pictures,
        "kib": round(kib, 1),
        "batch": batch,
        "feed_images_per_second": feed,
        "training": trained,
        "threads": threads(),
        "device": jax.devices()[0].device_kind,
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "numpy": np.__version__},
    }


def as_table(measured: dict[str, Any]) -> str:
    """Returns the measurements as markdown."""
    head = (
        f"| {measured['threads']} CPU cores, jax {measured['versions']['jax']}, JPEGs of {SIDE}x{SIDE} "
        f"({measured['kib']:.0f} KiB), batch {measured['batch']} | images/s | waiting |\n|---|---|---|\n"
    )
    rows = [f"| feed alone, from disk | {measured['feed_images_per_second']:.0f} | |"]
    rows += [
        f"| ResNet-18 trains, {where} | {run['images_per_second']:.1f} | {100 * run['waiting']:.2f} % |"
        for where, run in measured["training"].items()
    ]
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    command_line("streaming", __doc__, section, as_table, page=True)
