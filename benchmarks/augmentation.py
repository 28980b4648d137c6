"""What each kind of augmentation costs, beside the training step of a narrow ResNet-18 on this machine.

    python -m benchmarks.augmentation --size=48 --channels=1 --width=24

`step` is a training step as in a run, with shifts and flips; the others are the augmentation of as many images by
itself, and they take turns. The share is what an entry adds to shifts and flips, of the step.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks import harness, machine
from benchmarks.records import positive
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=positive(int), default=48, help="side of the images (default %(default)s)")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=1, help="of the images (default %(default)s)")
    parser.add_argument("--width", type=positive(int), default=24, help="of the network (default %(default)s)")
    parser.add_argument("--batch", type=positive(int), default=64, help="(default %(default)s)")
    parser.add_argument("--repeats", type=positive(int), default=15, help="turns (default %(default)s)")
    given = parser.parse_args(arguments)
    machine.prepare()
    steps = harness.STEPS_PER_DISPATCH if machine.accelerated() else CALLS
    with harness.faces_folder() as folder:
        config = harness.baseline_config(given.size, given.batch, folder)
        config.model.width = given.width
        turns = {"step": harness.training_run(config, steps)}
        turns |= {entry: augmenting(entry, given.size, given.batch, given.channels) for entry in ENTRIES}
        seconds = medians(take_turns(turns, given.repeats))
    step = seconds["step"] / steps
    rows = [["step", f"{1e3 * step:.2f}", f"{given.batch / step:,.0f}", ""]]
    for entry in ENTRIES:
        each, added = seconds[entry] / CALLS, (seconds[entry] - seconds[""]) / CALLS
        rows.append(
            [entry or "shifts and flips", f"{1e3 * each:.2f}", f"{given.batch / each:,.0f}", f"{added / step:.1%}"]
        )
    print(f"{machine.device_name()}, {given.size}x{given.size}x{given.channels}, batch {given.batch}\n")
    print(markdown(["", "ms", "images/s", "of the step"], rows))


if __name__ == "__main__":
    main()
