"""Times the main job as a new user sees it: from no data and empty caches.

    python -m benchmarks.main_job --out benchmarks/results/main_job.json

Runs `python run.py --config=experiments/fdrl.py` with empty caches, then the same command in another work directory
with the caches that the first one filled, up to its first step. Writes seconds, peak memory and the test accuracy.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import machine
from benchmarks.records import check_file, one_line, user_path, write_file
from fer_jax.errors import UserError


def run(workdir: pathlib.Path, caches: pathlib.Path, to_the_end: bool) -> tuple[float, float]:
    """Runs the main job, or only until its first step; returns its seconds and those until the first step."""
    command = [sys.executable, "run.py", "--config=experiments/fdrl.py", f"--workdir={workdir}"]
    environment = os.environ | {"TFDS_DATA_DIR": str(caches / "data"), "JAX_COMPILATION_CACHE_DIR": str(caches / "jax")}
    began = time.perf_counter()
    first_step = None
    with subprocess.Popen(command, cwd=machine.ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "first step after" in line:
                first_step = time.perf_counter() - began
                if not to_the_end:
                    process.kill()
    if first_step is None or (to_the_end and process.returncode):
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}, first step after {first_step}")
    return time.perf_counter() - began, first_step


def as_table(measured: dict[str, Any]) -> str:
    """Returns the measurements as Markdown."""
    rows = {
        "whole run, from no data and nothing compiled": f"{measured['seconds'] / 60:.1f} minutes",
        "peak memory": f"{measured['peak_memory_gib']:.1f} GiB",
        f"accuracy on the {measured['num_examples']:,} test images": f"{measured['accuracy']:.3f}",
        "first step after": f"{measured['first_step_seconds']:.0f} s",
        "first step after, second start": f"{measured['first_step_seconds_with_caches']:.0f} s",
    }
    named = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    head = f"| {measured['cores']} CPU cores, {named} | |\n|---|---|\n"
    return head + "".join(f"| {what} | {value} |\n" for what, value in rows.items())


def section(quick: bool = False) -> dict[str, Any]:
    """Runs the main job twice and returns the measurements."""
    if quick:
        raise UserError("the main job has no quick form: leave out main_job, or --quick")
    with tempfile.TemporaryDirectory() as folder:
        caches = pathlib.Path(folder)
        seconds, first_step = run(caches / "first", caches, to_the_end=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB, of the largest process
        results = json.loads((caches / "first" / "results.json").read_text())
        _, second_first_step = run(caches / "second", caches, to_the_end=False)
    found = machine.versions()
    return {
        "command": "python run.py --config=experiments/fdrl.py",
        "seconds": round(seconds, 1),
        "peak_memory_gib": round(peak / 2**20, 2),
        "accuracy": results["accuracy"],
        "num_examples": results["num_examples"],
        "first_step_seconds": round(first_step, 1),
        "first_step_seconds_with_caches": round(second_first_step, 1),
        "cores": machine.cores(),
        "versions": {name: found[name] for name in ("python", "jax")},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=user_path, required=True, help="JSON file to write")
    args = parser.parse_args(arguments)
    with one_line():
        check_file(args.out, ".md")
        measured = section()
        write_file(args.out, measured, as_table(measured))
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
