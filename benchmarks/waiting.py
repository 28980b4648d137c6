"""The share of a training run that is spent waiting for data: out of device memory, the host's, and from disk.

    python -m benchmarks.waiting --sizes=48,224

The ResNet-18 baseline trains as the loop trains it, by `Feed`, after a warm-up; `waited` is what the loop writes to
timing.jsonl as `waiting`. `device` has the data on the device, `stream` in the host's memory, `disk` decodes PNGs
as they are asked for.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks import flax_resnet, harness
from benchmarks.records import command_line
from benchmarks.turns import markdown

SIZES = (48, 224)
PATHS = ("device", "stream", "disk")
SECONDS = 5.0  # of training at least, and
STEPS = 4  # so many steps
QUICK_BATCH = 4


def measure(size: int, batch: int, path: str, seconds: float, data_dir: str) -> dict[str, Any]:
    """One row: training for some seconds with data from one place."""
    run = harness.FeedRun(harness.baseline_config(size, batch, data_dir, path))
    run.steps(1 + run.setup.steps_per_dispatch)  # compiles, and fills what is read ahead
    before, began, steps = run.waited, time.perf_counter(), 0
    while steps < STEPS or time.perf_counter() - began < seconds:
        steps += run.steps(1 if run.setup.steps_per_dispatch == 1 else 2 * run.setup.steps_per_dispatch)
    spent = time.perf_counter() - began
    return {
        "size": size,
        "batch": batch,
        "path": path,
        "steps": steps,
        "images_per_second": round(steps * batch / spent, 1),
        "waiting": round((run.waited - before) / spent, 5),
    }


def section(quick: bool = False, sizes: tuple[int, ...] = SIZES, seconds: float = SECONDS) -> dict[str, Any]:
    """What `python -m benchmarks` stores: rows, one of each size and place."""
    with harness.faces_folder() as folder:
        if quick:
            return {"rows": [measure(sizes[0], QUICK_BATCH, PATHS[0], 0.0, folder)]}
        return {
            "rows": [
                measure(size, flax_resnet.batches()[size], path, seconds, folder) for size in sizes for path in PATHS
            ]
        }


def as_table(result: dict[str, Any]) -> str:
    """The rows as markdown."""
    cells = [
        [
            f"{row['size']}x{row['size']}, {row['batch']}",
            row["path"],
            f"{row['images_per_second']:,.1f}",
            f"{100 * row['waiting']:.2f}",
        ]
        for row in result["rows"]
    ]
    return markdown(["input, batch", "data", "images/s", "waiting, %"], cells)


if __name__ == "__main__":
    command_line("waiting", __doc__, section, as_table, sizes=SIZES, seconds=SECONDS)
