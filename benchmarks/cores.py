"""Training and prediction of ResNet-18 beside how fast one CPU core reads what another has just written.

    python -m benchmarks.cores --rounds=60

In a virtual machine the host decides where the cores are: next to each other behind one cache, or apart, and it moves
them. What a core hands to another then takes two or three times as long, and whoever hands over more slows down more.
Before each round the bandwidth between two cores is measured; the table has the rounds in thirds, from near to far.
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks import flax_resnet, inference, machine, torch_resnet, train_step
from benchmarks.apart import Build, apart
from benchmarks.records import command_line
from benchmarks.turns import markdown

SIZE = 48
ROUNDS = 60
QUICK_BATCH = 4
HANDED_OVER = 1 << 20  # bytes: they fit into the cache of a core
HANDOVERS = 20


def between_cores() -> float:
    """Median GB/s at which a core copies what another one has just written."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    handed_over = np.zeros(HANDED_OVER, np.uint8)
    taken = np.zeros_like(handed_over)

    def take() -> float:
        began = time.perf_counter()
        np.copyto(taken, handed_over)
        return time.perf_counter() - began

    with _on_core(first) as writer, _on_core(second) as reader:
        seconds = []
        for number in range(HANDOVERS):
            writer.submit(handed_over.fill, number).result()
            seconds.append(reader.submit(take).result())
    return HANDED_OVER / statistics.median(seconds) / 1e9


def _on_core(core: int) -> ThreadPoolExecutor:
    """A thread that stays on a core."""
    return ThreadPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, {core}))


def measure(kind: str, batch: int, rounds: int, with_torch: bool) -> dict[str, Any]:
    """One kind, 'training' or 'prediction': the bandwidth of each round, and the milliseconds of each contestant."""
    examples = flax_resnet.examples(SIZE, batch)
    builds: dict[str, Build] = {}
    if kind == "training":
        builds[train_step.OURS] = functools.partial(train_step.ours, SIZE, batch, 1)
        builds[torch_resnet.EAGER] = functools.partial(torch_resnet.trainer, torch_resnet.EAGER, *examples, 1)
    else:
        builds[inference.OURS] = functools.partial(inference.our_prediction, SIZE, batch, 1)
        builds[torch_resnet.FROZEN] = functools.partial(torch_resnet.predictor, torch_resnet.FROZEN, examples[0], 1)
    if not with_torch:
        builds = dict(list(builds.items())[:1])
    rates: list[float] = []
    with apart(builds, needed=(inference.OURS,)) as (turns, _, failed):
        milliseconds: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(rounds):
            rates.append(round(between_cores(), 1))
            for name, run in turns.items():
                began = time.perf_counter()
                run()
                milliseconds[name].append(round(1e3 * (time.perf_counter() - began), 2))
    return {"kind": kind, "batch": batch, "gb_per_second": rates, "milliseconds": milliseconds, "failed": failed}


def section(quick: bool = False, rounds: int = ROUNDS) -> dict[str, Any]:
    """What `python -m benchmarks` stores: rows, one of each kind; none where the computing is not done by CPU cores."""
    if machine.accelerated() or not hasattr(os, "sched_getaffinity") or machine.cores() < 2:
        return {"rows": [], "skipped": "this compares CPU cores, two or more that a process may choose from, on Linux"}
    with_torch, batch = machine.has_torch() and not quick, QUICK_BATCH if quick else flax_resnet.batches()[SIZE]
    return {"rows": [measure(kind, batch, 1 if quick else rounds, with_torch) for kind in ("training", "prediction")]}


def thirds(row: dict[str, Any]) -> list[tuple[float, dict[str, float]]]:
    """Rounds of a row in up to three groups, from near cores to far ones: median GB/s, and medians of milliseconds."""
    nearest_first = np.argsort(row["gb_per_second"], stable=True)[::-1]
    return [
        (
            statistics.median(row["gb_per_second"][i] for i in group),
            {name: statistics.median(times[i] for i in group) for name, times in row["milliseconds"].items()},
        )
        for group in np.array_split(nearest_first, 3)
        if group.size
    ]


def as_table(result: dict[str, Any]) -> str:
    """The rows as markdown: milliseconds, and ours against PyTorch's."""
    if "skipped" in result:
        return f"not measured: {result['skipped']}\n"
    cells = []
    for row in result["rows"]:
        for rate, times in thirds(row):
            ours, *theirs = times.values()
            ratio = f"{theirs[0] / ours:.2f}" if theirs else ""
            cells.append([row["kind"], f"{rate:.0f}", f"{ours:.0f}", f"{theirs[0]:.0f}" if theirs else "", ratio])
    return markdown(["", "between the cores, GB/s", "fer_jax, ms", "PyTorch, ms", "ratio"], cells)


if __name__ == "__main__":
    command_line("cores", __doc__, section, as_table, page=True, rounds=ROUNDS)
