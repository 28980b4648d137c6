"""Which share of the machine's limits the training step of each method reaches.

    python -m benchmarks.roofline --out benchmarks/results/roofline.json

The least possible time of a step is the larger of two: its operations at the rate of a large matrix product, and its
bytes at the rate of a copy. XLA counts both, the operations in the program as it is traced, the bytes in the compiled
one. A value that stays in a cache counts as well. Synthetic faces of 48 pixels: on a CPU with the narrow networks of
`synthetic`, on an accelerator with networks of full width and larger batches.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, machine
from benchmarks.records import check_file, one_line, positive, several, user_path, write_file
from benchmarks.turns import markdown, medians, take_turns
from fer_jax.config.fields import Config, assign
from fer_jax.engine.mesh import put_indices, put_replicated
from fer_jax.training.runner import StepRunner, training_program
from fer_jax.training.setup import make_setup

METHODS = ("baseline", "compact", "fdrl", "acnn", "psr", "word2vec", "rul", "scn", "eac", "nla", "fan")
EXPERIMENTS = {"compact": "fer2013_fast"}
FULL: dict[str, dict[str, Any]] = {  # on an accelerator, beside a width of 64
    "compact": {"model.widths": (192, 384, 768), "model.stem_width": 64, "model.convolutions": 3},
    "acnn": {"model.cut": "conv3_3", "model.patch": 6},
    "psr": {"model.last": "pool5", "model.sr_blocks": 16, "model.sr_width": 64, "model.hidden": 512},
}
BATCH = 1024  # on an accelerator; of clips an eighth
SIDE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}  # of the matrix product
COPIED = {"cpu": 2**28, "gpu": 2**32, "tpu": 2**31}  # bytes


def limits(repeats: int) -> dict[str, float]:
    """Returns the operations of a large product and the bytes of a copy, read and written, per second."""
    side, size = SIDE[jax.default_backend()], COPIED[jax.default_backend()]
    a = jnp.ones((side, side), machine.compute_type())
    product = jax.jit(jnp.matmul, compiler_options=machine.our_options())
    copy = jax.jit(lambda values: values + 1, compiler_options=machine.our_options())
    values = jnp.zeros(size // 4, jnp.float32)
    turns = {"product": functools.partial(product, a, a), "copy": functools.partial(copy, values)}
    seconds = medians(take_turns(turns, repeats))
    return {"operations_per_second": 2 * side**3 / seconds["product"], "bytes_per_second": 2 * size / seconds["copy"]}


def config_of(method: str, data_dir: str) -> Config:
    """Returns the config whose steps are measured."""
    experiment = importlib.import_module(f"experiments.{EXPERIMENTS.get(method, method)}")
    small = harness.baseline_config(48, 64, data_dir)  # of faces
    config = experiment.get_config("cpu" if method == "compact" else "synthetic")
    if method == "fan":
        config.data.data_dir = data_dir
    else:
        config.data = small.data
        config.data.builder.size = 64  # as `synthetic` crops them
        config.data.points = "face24" if method == "acnn" else ""
    config.data.resolutions = ()
    config.train.devices = 1
    config.train.eval_every_epochs = config.train.epochs = 1000.0
    config.train.steps_per_dispatch = harness.STEPS_PER_DISPATCH if machine.accelerated() else 1
    if machine.accelerated():
        config.train.batch_size = BATCH // 8 if method == "fan" else BATCH
        wide = {"model.width": 64} if "width" in config.model else {}
        for field, value in (wide | FULL.get(method, {})).items():
            assign(config, field, value)
    return config


def measure(method: str, data_dir: str, repeats: int, most: Mapping[str, float]) -> dict[str, Any]:
    """Returns the time of a step of a method, its operations and bytes, and the share of the limits."""
    setup = make_setup(config_of(method, data_dir))
    state = setup.init()
    with contextlib.closing(StepRunner(setup, 0)) as steps:
        indices = put_indices(setup.mesh, jax.tree.map(lambda row: np.asarray(row)[None], steps.next_batch()))
        data = put_replicated(setup.mesh, dict(setup.train.arrays) | setup.train.shown_frames)
        traced = training_program(setup).lower(state, put_replicated(setup.mesh, np.int32(0)), data, indices)
        operations = traced.cost_analysis()["flops"]
        moved = traced.compile().cost_analysis()["bytes accessed"]
        del data

        def run() -> Any:
            nonlocal state
            state, metrics, _ = steps.run(state, setup.steps_per_dispatch)
            return metrics

        seconds = medians(take_turns({method: run}, repeats))[method] / setup.steps_per_dispatch
    least = max(operations / most["operations_per_second"], moved / most["bytes_per_second"])
    batch = setup.config.train.batch_size
    return {
        "method": method,
        "batch": batch,
        "ms": 1e3 * seconds,
        "gflop": 1e-9 * operations,
        "gbytes": 1e-9 * moved,
    } | {"share": least / seconds}


def as_table(measured: Mapping[str, Any]) -> str:
    """Returns the measurements as Markdown."""
    most = measured["limits"]
    where = f"{measured['device']}, {measured['dtype']}, jax {measured['versions']['jax']}"
    rates = f"{1e-9 * most['operations_per_second']:,.0f} GFLOP/s in a product, "
    rates += f"{1e-9 * most['bytes_per_second']:,.0f} GB/s in a copy"
    rows = [
        [
            row["method"],
            str(row["batch"]),
            f"{row['ms']:.2f}",
            f"{1e3 * row['batch'] / row['ms']:,.0f}",
            f"{row['gflop']:.1f}",
            f"{row['gbytes']:.2f}",
            f"{100 * row['share']:.0f}",
        ]
        for row in measured["rows"]
    ]
    head = ["method", "batch", "ms", "images/s", "GFLOP", "GB", "of the limit, %"]
    return f"{where}; {rates}:\n\n" + markdown(head, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=user_path, required=True, help="JSON file to write, and a table beside it")
    parser.add_argument("--methods", type=several(METHODS), default=METHODS, help="(default: all)")
    parser.add_argument("--repeats", type=positive(int), default=15, help="turns (default %(default)s)")
    given = parser.parse_args(arguments)
    with one_line(), harness.faces_folder() as folder:
        check_file(given.out, ".md")
        machine.prepare()
        measured = machine.describe() | {"limits": limits(given.repeats), "rows": []}
        for method in given.methods:  # written after each: what is measured stays if the time is up
            measured["rows"].append(measure(method, folder, given.repeats, measured["limits"]))
            write_file(given.out, measured, as_table(measured))
    print(as_table(measured))


if __name__ == "__main__":
    main()
