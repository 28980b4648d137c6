"""How a training step would scale to many devices: what it sends, counted in the compiled program, over their links.

    python -m benchmarks.scaling --out results/scaling.json [--images_per_second=25000]

The ResNet-18 step is compiled for 2, 4 and 8 virtual CPU devices, each in a process of its own, and its all-reduces are
counted: gradients, sums of the batch statistics, metrics. A ring of n devices sends 2 (n - 1) / n of each through every
link, and each waits for a latency that does not depend on its size. The estimate takes the step of one device for
granted (`--images_per_second` at 112 pixels in batches of 256), and adds the sums: all of their time, or, for the
larger share, half of it hidden behind the step. Links and latencies are rounded from what the makers
and the tests of their libraries publish; nothing here has run on such a machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import pathlib
import re
import subprocess
import sys

import jax

from benchmarks import harness, machine
from benchmarks.turns import markdown
from fer_jax.storage import write_whole
from fer_jax.training.runner import training_program
from fer_jax.training.setup import make_setup
from fer_jax.training.state import num_parameters

VIRTUAL = (2, 4, 8)
BATCH = 256  # of a device, in the estimate
BYTES = {"f32": 4, "bf16": 2, "f64": 8, "s32": 4, "u32": 4, "pred": 1}
REDUCE = re.compile(r" = (.*?) all-reduce(?:-start)?\(")
SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class System:
    """Devices in a ring.

    Attributes:
        devices: how many.
        link: bytes per second that a device sends to the next one.
        latency: seconds of an all-reduce of nothing.
    """

    devices: int
    link: float
    latency: float


SYSTEMS = {
    "8 GPUs, NVLink": System(8, 450e9, 12e-6),
    "16 GPUs on 2 hosts, 400 Gbit/s": System(16, 50e9, 30e-6),
    "16 GPUs on 2 hosts, 100 Gbit/s": System(16, 12.5e9, 30e-6),
    "v5e-64, a ring through the slice": System(64, 45e9, 70e-6),
}


def sums(program: str) -> tuple[int, int]:
    """Returns how many all-reduces the text of a compiled program has, and how many bytes they sum."""
    found = REDUCE.findall(program)  # the shape of each, or a tuple of shapes
    shapes = [shape for text in found for shape in SHAPE.findall(text)]
    return len(found), sum(BYTES[kind] * math.prod(map(int, filter(None, sides.split(",")))) for kind, sides in shapes)


def count() -> dict[str, int]:
    """Returns the all-reduces of the step for all devices of this process, and the bytes of the parameters."""
    with harness.faces_folder() as folder:
        config = harness.baseline_config(48, 16, folder)  # what is summed depends on neither size nor batch
        config.train.devices = 0
        setup = make_setup(config)
        state = setup.abstract_state()
        scalar, indices = (jax.ShapeDtypeStruct(shape, "int32") for shape in ((), (1, config.train.batch_size)))
        lowered = training_program(setup).lower(state, scalar, dict(setup.train.arrays), indices)
        number, size = sums(lowered.compile().as_text())
    return {"devices": jax.device_count(), "sums": number, "bytes": size, "parameters": num_parameters(state.params)}


def efficiency(system: System, number: int, size: int, step: float) -> tuple[float, float]:
    """Returns the share of perfect scaling: nothing overlaps with the step, and half of the sums' time does.

    Args:
        system: the devices.
        number, size: of the all-reduces of a step, and their bytes.
        step: seconds of a step of one device alone.
    """
    ring = 2 * (system.devices - 1) / system.devices * size / system.link
    whole = ring + number * system.latency
    return step / (step + whole), step / (step + whole / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default="results/scaling.json")
    parser.add_argument("--images_per_second", type=float, default=25_000.0, help="of one device")
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)  # set for the processes that compile
    given = parser.parse_args()
    if given.count:
        print(json.dumps(count()))
        return
    counts = [_in_a_process(devices) for devices in VIRTUAL]
    step, (number, size) = BATCH / given.images_per_second, (counts[-1]["sums"], counts[-1]["bytes"])
    shares = {name: efficiency(system, number, size, step) for name, system in SYSTEMS.items()}
    systems = {name: dataclasses.asdict(system) | {"shares": shares[name]} for name, system in SYSTEMS.items()}
    record = machine.describe() | {"counts": counts, "images_per_second": given.images_per_second, "systems": systems}
    write_whole(given.out, json.dumps(record, indent=1) + "\n")
    compiled = [[str(c["devices"]), f"{c['parameters']:,}", str(c["sums"]), f"{c['bytes'] / 1e6:.1f}"] for c in counts]
    text = markdown(["virtual devices", "parameters", "all-reduces a step", "MB a step"], compiled)
    rows = [
        [name, f"{system.link / 1e9:g}", f"{1e6 * system.latency:g}", f"{100 * low:.0f} to {100 * high:.0f}"]
        for (name, system), (low, high) in zip(SYSTEMS.items(), shares.values(), strict=True)
    ]
    head = [
        "estimated",
        "GB/s of a link",
        "µs of an all-reduce",
        f"% of perfect scaling, steps of {1000 * step:.0f} ms",
    ]
    text += "\n" + markdown(head, rows)
    write_whole(given.out.with_suffix(".md"), text)
    print(text)


def _in_a_process(devices: int) -> dict[str, int]:
    """Returns `count()` of a process with that many virtual devices."""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "benchmarks.scaling", "--count"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
