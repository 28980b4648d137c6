"""Runs all benchmarks on this machine:  python -m benchmarks [--only=train_step,inference] [--quick].

Each section runs in a process of its own, so that a crash does not affect the others, and all of them share the drawn
faces and the compiled programs. The results are added as one run to benchmarks/results/<device>.json;
`python -m docs.tables` then writes the speed table of docs/performance.md. PyTorch is measured where it is installed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import harness, machine, records
from fer_jax.errors import UserError, nearest, print_any_text, writing

SECTIONS = {
    "train_step": "training steps of fer_jax, plain Flax and PyTorch",
    "inference": "prediction and evaluation of fer_jax and PyTorch",
    "reading": "preparing and reading a large data set",
    "streaming": "training from disk",
    "main_job": "the first command of the README, from empty caches",
}
PAGES = ("streaming", "main_job")  # the documentation includes their tables
ONLY_IF_ASKED = ("main_job",)  # takes minutes
LONGEST = 3600  # seconds, after which a section counts as hung


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help=f"sections, separated by commas: {', '.join(SECTIONS)}")
    parser.add_argument("--main_job", action="store_true", help="also run the main job, which takes minutes")
    parser.add_argument("--quick", action="store_true", help="just enough of each to show that it runs")
    parser.add_argument("--out", type=records.user_path, default=records.RESULTS, help="folder (default %(default)s)")
    parser.add_argument("--section", default="", help=argparse.SUPPRESS)  # set for the processes of the sections
    print_any_text()
    args = parser.parse_args(arguments)
    try:
        if args.section:
            run_section(args.section, args.quick, args.out)
            return 0
        names = chosen(args.only, args.main_job)
        if args.quick and "main_job" in names:
            raise UserError("the main job has no quick form: leave out main_job, or --quick")
        return run_all(names, args.quick, args.out)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before anything was measured", file=sys.stderr)
        return 130


def chosen(only: str, main_job: bool) -> list[str]:
    """Returns the sections to run: those named, or all but the longest."""
    names = list(dict.fromkeys(name.strip() for name in only.split(",") if name.strip()))
    if only and not names:
        raise UserError(f"--only={only} names no section: give {', '.join(SECTIONS)}")
    for name in names:
        if name not in SECTIONS:
            raise UserError(f"--only={only}: there is no section '{name}'; {nearest(name, SECTIONS)}")
    everything = [name for name in SECTIONS if name not in ONLY_IF_ASKED]
    return (names or everything) + (["main_job"] if main_job and "main_job" not in names else [])


def run_all(names: Sequence[str], quick: bool, out: pathlib.Path) -> int:
    """Runs the sections in turn and records their results; returns 1 if one of them failed."""
    head = describe_in_a_process()
    records.check(out, head["device"])
    for name in PAGES:
        if name in names and not quick:
            page = out / f"{name}.md"
            records.check_file(page.with_suffix(".json"), ".md") if name == "main_job" else records.check_file(page)
    sections, began = {}, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        shared = pathlib.Path(folder)
        environment = os.environ | {
            harness.DATA_VARIABLE: str(shared / "faces"),
            "JAX_COMPILATION_CACHE_DIR": str(shared / "compiled"),
        }
        for name in names:
            print(f"== {name}: {SECTIONS[name]}", flush=True)
            start = time.perf_counter()
            try:
                sections[name] = in_a_process(name, quick, shared, environment)
            except KeyboardInterrupt:  # keeps the sections that are finished
                if not sections:
                    raise
                sections[name] = {"error": "interrupted"}
                break
            print(f"== {name}: {time.perf_counter() - start:.0f} s\n", flush=True)
    path = records.append(out, sections, head | {"quick": quick, "seconds": round(time.perf_counter() - began)})
    for name in PAGES:
        if not quick and "error" not in sections.get(name, {"error": "not measured"}):
            table = importlib.import_module(f"benchmarks.{name}").as_table(sections[name])
            if name == "main_job":  # with its numbers beside the table
                records.write_file(out / f"{name}.json", sections[name], table)
            else:
                with writing(out / f"{name}.md"):
                    (out / f"{name}.md").write_text(table)
    print(f"added to {path}; python -m docs.tables writes the table of docs/performance.md")
    failed = [name for name, result in sections.items() if "error" in result]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def in_a_process(name: str, quick: bool, folder: pathlib.Path, environment: dict[str, str]) -> dict[str, Any]:
    """Runs one section in a process of its own; returns its result, or {'error': reason}."""
    result = folder / f"{name}.json"
    command = [sys.executable, "-m", "benchmarks", f"--section={name}", f"--out={result}"]
    try:
        done = subprocess.run(
            [*command, *(["--quick"] if quick else [])], cwd=machine.ROOT, env=environment, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {LONGEST} s"}
    if done.returncode or not result.exists():
        return {"error": f"ended with status {done.returncode}"}
    return json.loads(result.read_text())


def run_section(name: str, quick: bool, out: pathlib.Path) -> None:
    """Runs one section, prints its table and writes its result to a file."""
    module = importlib.import_module(f"benchmarks.{name}")
    machine.prepare()
    result = module.section(quick=quick)
    print(module.as_table(result), flush=True)
    out.write_text(json.dumps(result))


def describe_in_a_process() -> dict[str, Any]:
    """Returns `machine.describe()` from a process of its own, so that the device stays free for the sections."""
    code = "import json; from benchmarks import machine; print(json.dumps(machine.describe()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=machine.ROOT, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1]
        raise UserError(f"JAX does not start here: {why}; check JAX_PLATFORMS and other variables of JAX")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
