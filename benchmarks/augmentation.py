"""The cost of each kind of augmentation, beside the training step of a narrow ResNet-18 on this machine.

    python -m benchmarks.augmentation --out benchmarks/results/augmentation.json

`step` is a training step as in a run, with shifts and flips; the others are the augmentation of as many images by
itself, and they take turns. The share is what an entry adds to shifts and flips, of the step.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import harness, machine
from benchmarks.records import check_file, one_line, positive, user_path, write_file
from benchmarks.turns import Run, markdown, medians, take_turns
from fer_jax.data.augment.augmentation import Augmentation, augment
from fer_jax.data.augment.preprocessing import Preprocessing

ALWAYS = ("shift:2", "flip")
ENTRIES = (
    "", "erase:0.5", "erase_pixels", "trivialaugment", "randaugment:1", "randaugment:2", "autoaugment", "augmix",
    "rotate:10", "noise:5.48",
)  # fmt: skip
CALLS = 4  # in a turn


def augmenting(entry: str, size: int, batch: int, channels: int) -> Run:
    """Returns a turn of CALLS augmentations of a batch on the device, `entry` before shifts and flips."""
    augmentation = Augmentation((entry, *ALWAYS) if entry else ALWAYS)
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, channels), np.uint8)
    images = jax.device_put(images)
    function = functools.partial(augment, augmentation=augmentation, preprocessing=Preprocessing(size))
    program = jax.jit(function, compiler_options=machine.our_options())
    keys = jax.random.split(jax.random.key(0), CALLS)
    return lambda: [program(key, images) for key in keys]


def measure(size: int, channels: int, width: int, batch: int, repeats: int) -> dict[str, Any]:
    """Returns the milliseconds of a batch, of the step and of each entry, and where they were measured."""
    machine.prepare()
    steps = harness.STEPS_PER_DISPATCH if machine.accelerated() else CALLS
    with harness.faces_folder() as folder:
        config = harness.baseline_config(size, batch, folder)
        config.model.width = width
        turns = {"step": harness.training_run(config, steps)}
        turns |= {entry: augmenting(entry, size, batch, channels) for entry in ENTRIES}
        seconds = medians(take_turns(turns, repeats))
    each = {name: 1e3 * value / (steps if name == "step" else CALLS) for name, value in seconds.items()}
    return {"size": size, "channels": channels, "width": width, "batch": batch, "ms": each} | machine.describe()


def as_table(measured: Mapping[str, Any]) -> str:
    """Returns the measurements as Markdown."""
    each, batch, size = measured["ms"], measured["batch"], measured["size"]
    rows = [["step", f"{each['step']:.2f}", f"{1e3 * batch / each['step']:,.0f}", ""]]
    for entry in ENTRIES:
        added = (each[entry] - each[""]) / each["step"]
        rows.append(
            [entry or "shifts and flips", f"{each[entry]:.2f}", f"{1e3 * batch / each[entry]:,.0f}", f"{added:.1%}"]
        )
    where = f"{measured['device']}, jax {measured['versions']['jax']}"
    what = f"{size}x{size}x{measured['channels']}, batch {batch}, ResNet-18 of width {measured['width']}"
    return f"{where}, {what}:\n\n" + markdown(["", "ms", "images/s", "of the step"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=user_path, required=True, help="JSON file to write, and a table beside it")
    parser.add_argument("--size", type=positive(int), default=48, help="side of the images (default %(default)s)")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=1, help="of the images (default %(default)s)")
    parser.add_argument("--width", type=positive(int), default=24, help="of the network (default %(default)s)")
    parser.add_argument("--batch", type=positive(int), default=64, help="(default %(default)s)")
    parser.add_argument("--repeats", type=positive(int), default=15, help="turns (default %(default)s)")
    given = vars(parser.parse_args(arguments))
    out = given.pop("out")
    with one_line():
        check_file(out, ".md")
        measured = measure(**given)
        write_file(out, measured, as_table(measured))
    print(as_table(measured))


if __name__ == "__main__":
    main()
