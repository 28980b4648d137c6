"""Speed and memory of preparing and reading a large data set.

    python -m benchmarks.reading --out benchmarks/results/reading.json

Generates JPEGs of 224 pixels in the folders of AffectNet's newer release and prepares them with one process (no crop:
files are checked and copied), then four times as many, to see whether memory stays flat, and with all cores. Then reads
random batches of 64 at 224 pixels as a streaming run does: encoded on disk, decoded on demand. The random contents take
as long to decode as photographs of the file size in the table.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import ROOT, cores, versions
from benchmarks.records import check_file, one_line, positive, user_path, write_file

SIDE, BATCH, BATCHES = 224, 64, 30
BUILD = """
import resource, sys
from tfds_builders import __main__ as command
status = command.main(["build", "affectnet", "--allow_counts", "--manual_dir", sys.argv[1], "--data_dir", sys.argv[2],
                       "--jobs", sys.argv[3]])
print("PEAK", *(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
sys.exit(status)
"""


def make_tree(folder: pathlib.Path, count: int) -> float:
    """Writes `count` training images, one validation image per class, and their annotations; returns the mean KiB."""
    rng = np.random.default_rng(0)
    size = 0
    for name, pictures in (("train_set", count), ("val_set", 8)):
        images, notes = folder / name / "images", folder / name / "annotations"
        images.mkdir(parents=True)
        notes.mkdir()
        marks = rng.uniform(40, 180, 136).astype(np.float32)
        for number in range(pictures):
            coarse = Image.fromarray(rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)).resize((SIDE, SIDE))
            grain = rng.integers(-12, 13, (SIDE, SIDE, 1))
            pixels = np.clip(np.asarray(coarse).astype(np.int16) + grain, 0, 255).astype(np.uint8)
            path = images / f"{number}.jpg"
            Image.fromarray(pixels).save(path, quality=85)
            size += path.stat().st_size
            for kind, value in {"exp": str(number % 8), "val": "0.25", "aro": "-0.5", "lnd": marks}.items():
                np.save(notes / f"{number}_{kind}.npy", np.array(value))
    return size / (count + 8) / 1024


def build(tree: pathlib.Path, data: pathlib.Path, jobs: int) -> tuple[float, float]:
    """Prepares a folder; returns seconds and the peak memory of the largest process in MiB."""
    command = [sys.executable, "-c", BUILD, str(tree), str(data), str(jobs)]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - began
    return seconds, max(map(int, done.stdout.split("PEAK")[1].split())) / 1024


def read_back(data: pathlib.Path) -> dict[str, float]:
    """Reads random batches as a streaming run does; returns images per second with one thread and with all."""
    from fer_jax.data.sources import on_disk
    from fer_jax.data.sources.decoding import decoded
    from tfds_builders import registry

    builder = registry.make_builder("affectnet", str(data))
    began = time.perf_counter()
    pictures = decoded(builder, "train", on_disk=True)["image"]
    opened = time.perf_counter() - began
    rng = np.random.default_rng(0)
    rates = {}
    for name, threads in (("one thread", 1), ("all cores", on_disk.threads())):
        on_disk.threads = lambda n=threads: n
        pictures[rng.integers(0, len(pictures), BATCH)]
        began = time.perf_counter()
        for _ in range(BATCHES):
            pictures[rng.integers(0, len(pictures), BATCH)]
        rates[name] = BATCH * BATCHES / (time.perf_counter() - began)
    return rates | {"seconds to open": opened}


def as_table(measured: dict[str, Any]) -> str:
    """Returns the measurements as Markdown."""
    head = f"| {measured['cores']} CPU cores, {measured['kib']:.0f} KiB a picture of {SIDE}x{SIDE} | |\n|---|---|\n"
    rows = {
        f"prepared by one process, {measured['few']:,} pictures": f"{measured['per_second_one']:.0f} images/s",
        f"the same by {measured['cores']}, {measured['many']:,} pictures": f"{measured['per_second_all']:.0f} images/s",
        f"peak memory, {measured['few']:,} pictures": f"{measured['peak_few']:.0f} MiB",
        f"peak memory, {measured['many']:,} pictures": f"{measured['peak_many']:.0f} MiB",
        "read back in random batches, one thread": f"{measured['read']['one thread']:.0f} images/s",
        "read back in random batches, all cores": f"{measured['read']['all cores']:.0f} images/s",
    }
    return head + "".join(f"| {what} | {value} |\n" for what, value in rows.items())


def measure(few: int) -> dict[str, Any]:
    """Prepares and reads data sets of `few` and of four times as many images."""
    many = 4 * few
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        make_tree(place / "few", few)
        kib = make_tree(place / "many", many)
        start, _ = build(place / "few", place / "warm", 1)  # fills the file cache
        one, peak_few = build(place / "few", place / "one", 1)
        many_one, peak_many = build(place / "many", place / "many_one", 1)
        many_all, _ = build(place / "many", place / "all", 0)
        read = read_back(place / "all")
    return {
        "few": few,
        "many": many,
        "kib": round(kib, 1),
        # The time to start cancels out between the two sizes.
        "per_second_one": (many - few) / (many_one - one),
        "per_second_all": many / many_all,
        "seconds": {"few, first time": start, "few": one, "many": many_one, "many, all cores": many_all},
        "peak_few": peak_few,
        "peak_many": peak_many,
        "read": read,
        "cores": cores(),
        "versions": versions(),
    }


def section(quick: bool = False) -> dict[str, Any]:
    """Measures a smaller data set than the table of docs/data.md does."""
    return measure(20 if quick else 1000)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=user_path, required=True, help="JSON file to write")
    parser.add_argument("--pictures", type=positive(int), default=4000, help="of the smaller tree (%(default)s)")
    args = parser.parse_args(arguments)
    with one_line():
        check_file(args.out, ".md")
        measured = measure(args.pictures)
        write_file(args.out, measured, as_table(measured))
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
