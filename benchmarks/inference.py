"""Images per second of ResNet-18 in prediction and in evaluation: ours, and PyTorch where it is installed.

    python -m benchmarks.inference --sizes=48,112,224 --repeats=5

Prediction is the network on a batch of images that are on the device, and on a single image. Evaluation is what
`--mode=evaluate` does with a split: uint8 faces from host memory in batches, normalized on the device, all outputs
returned as one array; PyTorch's is the same written as a loop. Each contestant has a process of its own, and they take
turns; the medians are compared, and the best of PyTorch's variants (`torch_resnet.py`): eager, compiled, frozen; not
compiled for a single image on a CPU; on a GPU with CUDA graphs and autotuning instead of frozen.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks import flax_resnet, harness, machine, torch_resnet
from benchmarks.apart import Build, apart
from benchmarks.records import command_line
from benchmarks.turns import Run, markdown, medians, take_turns
from fer_jax.data.sources.source import Source
from fer_jax.evaluation.evaluate import Evaluator
from fer_jax.training.setup import Setup, make_setup

SIZES = (48, 112, 224)
OURS = "fer_jax"
QUICK_BATCH = 4


def predictions(size: int, batch: int, repeats: int, with_torch: bool) -> dict[str, Any]:
    """Returns one row: the network alone on `batch` images."""
    steps = 20 if machine.accelerated() else 1 if batch > 1 else 5
    builds: dict[str, Build] = {OURS: functools.partial(our_prediction, size, batch, steps)}
    if with_torch:
        images, _ = flax_resnet.examples(size, batch)
        ways = torch_resnet.ways("prediction", batch)
        builds |= {way: functools.partial(torch_resnet.predictor, way, images, steps) for way in ways}
    return _row("prediction", size, batch, batch * steps, builds, repeats)


def our_prediction(size: int, batch: int, steps: int) -> Run:
    """Returns a turn of our network."""
    model = flax_resnet.Ours(jnp.dtype(machine.compute_type()))
    return flax_resnet.predictor(flax_resnet.inference(model, flax_resnet.examples(size, batch)[0]), steps)


def evaluations(size: int, batch: int, repeats: int, with_torch: bool, data_dir: str) -> dict[str, Any]:
    """Returns one row: a split of `harness.EVALUATED` batches from host memory to an array of logits."""
    builds: dict[str, Build] = {OURS: functools.partial(our_evaluation, size, batch, data_dir)}
    if with_torch:
        pictures = np.ascontiguousarray(evaluated(size, batch, data_dir)[1].arrays["image"])
        ways = torch_resnet.ways("evaluation", batch)
        builds |= {way: functools.partial(torch_resnet.evaluator, way, pictures, batch) for way in ways}
    return _row("evaluation", size, batch, harness.EVALUATED * batch, builds, repeats)


def our_evaluation(size: int, batch: int, data_dir: str) -> Run:
    """Returns a turn of `Evaluator`."""
    setup, source = evaluated(size, batch, data_dir)
    evaluator, variables = Evaluator(setup.task, setup.mesh, batch), setup.init().variables()
    return lambda: evaluator(variables, source)["logits"]


def evaluated(size: int, batch: int, data_dir: str) -> tuple[Setup, Source]:
    """Returns a run and the split that is scored."""
    setup = make_setup(harness.baseline_config(size, batch, data_dir))
    return setup, setup.train.select(np.arange(harness.EVALUATED * batch))


def _row(kind: str, size: int, batch: int, images: int, builds: Mapping[str, Build], repeats: int) -> dict[str, Any]:
    with apart(builds, needed=(OURS,)) as (turns, ready, failed):
        seconds = take_turns(turns, repeats)
    return {
        "kind": kind,
        "size": size,
        "batch": batch,
        "ready_seconds": ready,
        "milliseconds": {name: [round(1e3 * s, 2) for s in times] for name, times in seconds.items()},
        "images_per_second": {name: round(images / s, 1) for name, s in medians(seconds).items()},
        "failed": failed,
    }


def section(quick: bool = False, sizes: tuple[int, ...] = SIZES, repeats: int = 5) -> dict[str, Any]:
    """Returns {'rows': prediction, a single image, and evaluation, for each size}."""
    with_torch = machine.has_torch() and not quick
    batches = {sizes[0]: QUICK_BATCH} if quick else {size: flax_resnet.batches()[size] for size in sizes}
    repeats = 1 if quick else repeats
    rows = []
    with harness.faces_folder() as folder:
        for size, batch in batches.items():
            rows.append(predictions(size, batch, repeats, with_torch))
            rows.append(predictions(size, 1, repeats, with_torch))
            rows.append(evaluations(size, batch, repeats, with_torch, folder))
    return {"rows": rows}


def as_table(result: dict[str, Any]) -> str:
    """Returns the rows as Markdown: images per second."""
    rows = result["rows"]
    names = list(dict.fromkeys(name for row in rows for name in row["images_per_second"]))
    cells = [
        [row["kind"], f"{row['size']}x{row['size']}, {row['batch']}"]
        + [f"{row['images_per_second'][name]:,.1f}" if name in row["images_per_second"] else "" for name in names]
        for row in rows
    ]
    return markdown(["", "input, batch", *names], cells)


if __name__ == "__main__":
    command_line("inference", __doc__, section, as_table, sizes=SIZES, repeats=5)
