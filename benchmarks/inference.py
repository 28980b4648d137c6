"""Images per second of ResNet-18 in prediction and in evaluation: ours, and PyTorch where it is installed.

    python -m benchmarks.inference --sizes=48,112,224 --repeats=5

Prediction is the network on a batch of images that lie on the device, and on a single image. Evaluation is what
`--mode=evaluate` does with a split: uint8 faces out of the host's memory in batches, normalised on the device, the
outputs of all of them back as one array; PyTorch's is the same written as a loop. The contestants share one process and
take turns; the medians are compared, and of PyTorch's ways (`torch_resnet.py`) the best: eager, compiled, frozen; for
a single image on a CPU without the compiled one, on a GPU with CUDA graphs and autotuning instead of the frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks import flax_resnet, harness, machine
from benchmarks.records import command_line
from benchmarks.turns import markdown, medians, take_turns
from fer_jax.evaluation.evaluate import Evaluator
from fer_jax.training.setup import make_setup

SIZES = (48, 112, 224)
OURS = "fer_jax"
QUICK_BATCH = 4


def predictions(size: int, batch: int, repeats: int, with_torch: bool) -> dict[str, Any]:
    """One row: the network alone on `batch` images."""
    images, _ = flax_resnet.examples(size, batch)
    dtype = jnp.dtype(machine.compute_type())
    steps = 20 if machine.accelerated() else 1 if batch > 1 else 5
    compiled = flax_resnet.inference(flax_resnet.Ours(dtype), images)
    turns: dict[str, Callable[[], Any]] = {OURS: flax_resnet.predictor(compiled, steps)}
    failed: dict[str, str] = {}
    if with_torch:
        from benchmarks import torch_resnet

        working, failed = torch_resnet.that_work(lambda: torch_resnet.predictors(images, steps))
        turns |= working
    return _row("prediction", size, batch, batch * steps, take_turns(turns, repeats), failed)


def evaluations(size: int, batch: int, repeats: int, with_torch: bool, data_dir: str) -> dict[str, Any]:
    """One row: a split of `harness.EVALUATED` batches from the host's memory to an array of logits."""
    setup = make_setup(harness.baseline_config(size, batch, data_dir))
    source = setup.train.select(np.arange(harness.EVALUATED * batch))
    evaluator, variables = Evaluator(setup.task, setup.mesh, batch), setup.init().variables()
    turns: dict[str, Callable[[], Any]] = {OURS: lambda: evaluator(variables, source)["logits"]}
    failed: dict[str, str] = {}
    if with_torch:
        from benchmarks import torch_resnet

        pictures = np.ascontiguousarray(source.arrays["image"])
        working, failed = torch_resnet.that_work(lambda: torch_resnet.evaluators(pictures, batch))
        turns |= working
    return _row("evaluation", size, batch, len(source), take_turns(turns, repeats), failed)


def _row(
    kind: str, size: int, batch: int, images: int, seconds: dict[str, list[float]], failed: dict[str, str]
) -> dict[str, Any]:
    return {
        "kind": kind,
        "size": size,
        "batch": batch,
        "milliseconds": {name: [round(1e3 * s, 2) for s in times] for name, times in seconds.items()},
        "images_per_second": {name: round(images / s, 1) for name, s in medians(seconds).items()},
        "failed": failed,
    }


def section(quick: bool = False, sizes: tuple[int, ...] = SIZES, repeats: int = 5) -> dict[str, Any]:
    """What `python -m benchmarks` stores: rows, for each size of prediction, of a single image, and of evaluation."""
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
    """The rows as markdown: images per second."""
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
