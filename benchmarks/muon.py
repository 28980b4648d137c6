"""Muon's update by Gram matrices and by optax, for the hidden kernels of the compact network, in turns.

taskset -c 0 python -m benchmarks.muon --out benchmarks/results/muon.json
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax.contrib

from benchmarks import machine
from benchmarks.records import check_file, one_line, positive, user_path, write_file
from benchmarks.turns import Run, markdown, medians, take_turns
from fer_jax.training.muon import orthogonalized

NETWORKS = ((48, 96, 192), (96, 192, 384))  # widths of fer2013_fast.py and fer2013_best.py
STEM = 32


def updates(widths: Sequence[int]) -> dict[str, Run]:
    """Returns a turn of each form: the update for random momenta of a network's kernels."""
    inputs = [channels for pair in zip((STEM, *widths), widths, strict=False) for channels in pair]
    outputs = [width for width in widths for _ in range(2)]
    shapes = [(3, 3, *channels) for channels in zip(inputs, outputs, strict=True)]
    rng = np.random.default_rng(0)
    kernels = jax.device_put([rng.standard_normal(shape).astype(np.float32) for shape in shapes])
    numbers = [optax.contrib.MuonDimensionNumbers((0, 1, 2), (3,)) for _ in shapes]
    theirs = optax.contrib.scale_by_muon(weight_dimension_numbers=numbers)
    state, options = theirs.init(kernels), machine.our_options()
    ours = jax.jit(lambda kernels: jax.tree.map(orthogonalized, kernels), compiler_options=options)
    optaxs = jax.jit(lambda kernels: theirs.update(kernels, state)[0], compiler_options=options)
    return {"optax": lambda: optaxs(kernels), "fer_jax": lambda: ours(kernels)}


def measure(repeats: int) -> dict[str, Any]:
    """Returns the milliseconds of an update by network and form, and where they were measured."""
    machine.prepare()
    turns = {f"{widths} {form}": run for widths in NETWORKS for form, run in updates(widths).items()}
    return {
        "ms": {name: 1e3 * value for name, value in medians(take_turns(turns, repeats)).items()}
    } | machine.describe()


def as_table(measured: Mapping[str, Any]) -> str:
    """Returns the measurements as Markdown."""
    each, rows = measured["ms"], []
    for widths in NETWORKS:
        theirs, ours = (each[f"{widths} {form}"] for form in ("optax", "fer_jax"))
        rows.append([str(widths), f"{theirs:.1f}", f"{ours:.1f}", f"{theirs / ours:.1f}"])
    head = ["widths", "optax, ms", "fer_jax, ms", "ratio"]
    return f"{measured['device']}, jax {measured['versions']['jax']}:\n\n{markdown(head, rows)}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=user_path, required=True, help="JSON file to write, and a table beside it")
    parser.add_argument("--repeats", type=positive(int), default=15, help="turns (default %(default)s)")
    given = parser.parse_args(arguments)
    with one_line():
        check_file(given.out, ".md")
        measured = measure(given.repeats)
        write_file(given.out, measured, as_table(measured))
    print(as_table(measured))


if __name__ == "__main__":
    main()
