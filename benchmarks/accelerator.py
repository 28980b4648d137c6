"""What one accelerator is worth measuring by, the most valuable first, within some minutes.

    python -m benchmarks.accelerator --out FOLDER --data_dir=FOLDER     # of prepared FER-2013

- bars: training and prediction beside PyTorch (`python -m benchmarks`);
- fast: experiments/fer2013_fast.py, five seeds;
- roofline: the share of the device's limits that the step of each method reaches;
- best: experiments/fer2013_best.py, once.

Each section has a time limit and leaves FOLDER/SECTION.json, the bars a file with the name of the device; one that is
done is not repeated, and the runs resume. `--quick` takes the smallest of each, to show on any machine that it runs.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks import machine
from benchmarks.records import positive, user_path


class Section(NamedTuple):
    """What to run: `arguments` of Python, with {out} and {data}, for at most `seconds`; `result` is what it leaves."""

    name: str
    seconds: float
    arguments: tuple[str, ...]
    result: str = ""


def sections(quick: bool) -> list[Section]:
    """Returns the sections, the most valuable first."""
    variants = {"fast": ":smoke", "best": ":smoke"} if quick else {"fast": "", "best": ":gpu"}

    def run(name: str, *more: str) -> tuple[str, ...]:
        config = f"--config=experiments/fer2013_{name}.py{variants[name]}"
        return ("run.py", config, "--config.data.data_dir={data}", f"--workdir={{out}}/runs/{name}", *more)

    bars = ("-m", "benchmarks", "--out={out}", "--only=reading" if quick else "--only=train_step,inference")
    roofline = ("-m", "benchmarks.roofline", "--out={out}/roofline.json")
    few = ("--methods=baseline", "--repeats=1") if quick else ()
    return [
        Section("bars", 240, (*bars, *(["--quick"] if quick else []))),
        Section("fast", 330, run("fast", f"--config.seeds={2 if quick else 5}"), "runs/fast/results.json"),
        Section("roofline", 150, (*roofline, *few)),
        Section("best", 600, run("best"), "runs/best/results.json"),
    ]


def measure(section: Section, out: pathlib.Path, data_dir: str, seconds: float) -> str:
    """Runs a section for at most so many seconds; returns how it ended."""
    command = [sys.executable, *(text.format(out=out, data=data_dir) for text in section.arguments)]
    try:
        status = subprocess.run(command, cwd=machine.ROOT, timeout=min(section.seconds, seconds)).returncode
    except subprocess.TimeoutExpired:
        return "its time was up: the same command continues"
    if status:
        return f"ended with status {status}"
    if section.result:
        shutil.copy(out / section.result, out / f"{section.name}.json")
    (out / f"{section.name}.done").touch()
    return "done"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=user_path, required=True, help="folder of the results and runs")
    parser.add_argument("--data_dir", required=True, help="folder of the prepared data")
    parser.add_argument("--minutes", type=positive(float), default=12.0, help="in all (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="just enough of each to show that it runs")
    given = parser.parse_args(arguments)
    out, began, failed = given.out.resolve(), time.monotonic(), False
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.fspath(out / "runs" / "compiled"))
    for section in sections(given.quick):
        left = 60 * given.minutes - (time.monotonic() - began)
        if (out / f"{section.name}.done").exists() or left <= 0:
            continue
        start = time.monotonic()
        ended = measure(section, out, os.path.abspath(given.data_dir), left)
        print(f"== {section.name}: {time.monotonic() - start:.0f} s, {ended}", flush=True)
        failed |= ended != "done"
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
