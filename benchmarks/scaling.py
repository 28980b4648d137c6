"""The scaling to expect of data parallelism, computed: no accelerator is needed, and none is measured here.

    python -m benchmarks.scaling --out benchmarks/results/scaling.json

Each device computes its share of the batch, then the gradients are summed over all of them. A ring all-reduce moves
2 (n - 1) / n of the gradients' bytes through the slowest link; the sums of the batch statistics cost a latency each.
Two bounds: the sum of the gradients begins when the step has ended (nothing overlaps), or hides behind the half of the
step that is still going backwards (all that can overlap does). The efficiency is the step of one device over that of
n, each with the same batch per device.

The step of a CPU is the newest one that `python -m benchmarks` measured; that of an accelerator is the
project's own bar for ResNet-18 at 48 pixels (25,000 images/s on one data-centre GPU), an assumption until it is
measured: give another with --images_per_second.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import sys
from typing import Any

from benchmarks.records import check_file, write_file
from fer_jax.errors import UserError
from fer_jax.evaluation.speed import newest, readable, stored_runs

PARAMETERS = 11_180_103  # of ResNet-18 with seven classes
BYTES = 4  # gradients are float32, whatever the network computes in
BATCH = 256  # images of a device, on an accelerator
ASSUMED = 25_000.0  # images per second of one accelerator at 48 pixels
# Batch statistics are over the global batch: in each of 20 norms two sums forward and one backward wait for all.
SMALL_SUMS = 3 * 20
# Nominal: bytes per second that one device sends while all of them do, and seconds of the smallest sum.
LINKS = {
    "NVLink, one node": (300e9, 10e-6),
    "400 Gbit/s network": (50e9, 25e-6),
    "100 Gbit/s network": (12.5e9, 30e-6),
    "10 Gbit/s network": (1.25e9, 60e-6),
    "TPU v4, one ring of its torus": (45e9, 5e-6),
}
DEVICES = (2, 8, 32, 128)


def reduce_seconds(devices: int, bandwidth: float, gradient_bytes: float = PARAMETERS * BYTES) -> float:
    """Seconds of a ring all-reduce of the gradients over `devices` with `bandwidth` bytes/s each."""
    return 2 * (devices - 1) / devices * gradient_bytes / bandwidth


def efficiency(step: float, reduce: float, latency: float) -> tuple[float, float]:
    """Returns (nothing overlaps, all that can overlap does) of a step and a sum of the gradients, in seconds.

    The sums of the batch statistics, `latency` each, overlap with nothing.
    """
    backward = step / 2  # at least: forward is a third of the operations, and the last gradients come at the very end
    norms = SMALL_SUMS * latency
    return step / (step + norms + reduce), step / (step + norms + max(0.0, reduce - backward))


def cpu_steps(results: pathlib.Path) -> dict[str, float]:
    """Seconds of the newest steps that `python -m benchmarks` measured on each CPU, by name."""
    steps = {}
    for device, runs in stored_runs(results):
        with readable(f"what {results} holds of {device}"):
            found = newest(runs, "train_step")
            if found is None or found[0]["backend"] != "cpu":
                continue
            for row in found[1]["rows"]:
                name = f"measured: {device}, {row['size']} px, batch {row['batch']}"
                steps[name] = row["batch"] / row["images_per_second"]["fer_jax"]
    return steps


def table(steps: dict[str, float]) -> list[dict[str, Any]]:
    """One row for each step, link and number of devices."""
    rows = []
    for name, step in steps.items():
        for link, (bandwidth, latency) in LINKS.items():
            if name.startswith("measured") and not link.endswith("network"):
                continue  # CPUs have networks only
            for devices in DEVICES:
                reduce = reduce_seconds(devices, bandwidth)
                low, high = efficiency(step, reduce, latency)
                rows.append(
                    {"step": name, "step_ms": step * 1e3, "link": link, "devices": devices}
                    | {"reduce_ms": reduce * 1e3, "without_overlap": low, "with_overlap": high}
                )
    return rows


def as_table(rows: list[dict[str, Any]]) -> str:
    """The rows as markdown, a line for each step and link."""
    head = "| step of one device | link | " + " | ".join(f"{n} devices" for n in DEVICES) + " |\n|---|---|"
    lines = [head + "---|" * len(DEVICES)]
    for start in range(0, len(rows), len(DEVICES)):
        group = rows[start : start + len(DEVICES)]
        shares = " | ".join(_between(row["without_overlap"], row["with_overlap"]) for row in group)
        lines.append(f"| {group[0]['step']} ({group[0]['step_ms']:.0f} ms) | {group[0]['link']} | {shares} |")
    return "\n".join(lines) + "\n"


def _between(low: float, high: float) -> str:
    low_text, high_text = f"{100 * low:.1f}", f"{100 * high:.1f}"
    return f"{low_text} %" if low_text == high_text else f"{low_text} to {high_text} %"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="JSON file to write")
    parser.add_argument("--images_per_second", type=float, default=ASSUMED, help="of one accelerator (%(default)s)")
    parser.add_argument("--batch", type=int, default=BATCH, help="of one accelerator (default %(default)s)")
    args = parser.parse_args()
    try:
        write(args.out, args.images_per_second, args.batch)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    return 0


def write(out: pathlib.Path, images_per_second: float, batch: int) -> None:
    """Computes the table for an accelerator of that speed and for the CPUs measured beside `out`, and writes it."""
    if not (0 < images_per_second < math.inf and batch > 0):
        raise UserError(f"--images_per_second={images_per_second:g} and --batch={batch}: both must be above 0")
    check_file(out, ".md")
    assumed = f"assumed: accelerator, {images_per_second:,.0f} images/s, batch {batch}"
    steps = {assumed: batch / images_per_second} | cpu_steps(out.parent)
    rows = table(steps)
    write_file(out, {"parameters": PARAMETERS, "gradient_bytes": PARAMETERS * BYTES, "rows": rows}, as_table(rows))
    print(as_table(rows))


if __name__ == "__main__":
    sys.exit(main())
