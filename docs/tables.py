"""Fills the tables of the documentation from committed results: `python -m docs.tables [--check]`.

A block of a page stands between `<!-- KIND: PATH -->` and `<!-- end -->`:

- `results: FOLDER`: the JSON files that `--mode=evaluate --out=` wrote into a folder, a row per experiment;
- `summary: FOLDER`: the rows of all such folders inside a folder, with fewer columns;
- `speed: FOLDER`: the newest complete run of `python -m benchmarks` on each device;
- `include: FILE`: a file as another command wrote it, or that command where it has not been run yet.

Runs that were scored on private_test are entered in results/private_test_reads.csv (docs/readings.py).

A row is marked while an earlier version of fer_jax (its first two numbers) produced it.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.records import readable
from docs import readings
from docs.speed import is_old, speed_table
from fer_jax.errors import UserError, print_any_text, writing

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/results.md", "docs/claims.md", "docs/data.md", "docs/explanations.md")
PAGES += ("docs/augmentation.md", "docs/noise.md", "docs/performance.md", "docs/scaling.md")
BLOCK = re.compile(r"(<!-- (?P<kind>\w+): (?P<path>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
NOT_YET = "not measured yet\n"
OLD = " †"
OLD_NOTE = "\n† measured with an earlier version of fer_jax\n"
# The command that writes an included file.
COMMANDS = {
    "benchmarks/results/augmentation.md": (
        "python -m benchmarks.augmentation --out benchmarks/results/augmentation.json"
    ),
    "benchmarks/results/augmentation_color.md": (
        "python -m benchmarks.augmentation --width=64 --channels=3 --out benchmarks/results/augmentation_color.json"
    ),
    "benchmarks/results/main_job.md": "python -m benchmarks.main_job --out benchmarks/results/main_job.json",
    "benchmarks/results/muon.md": "taskset -c 0 python -m benchmarks.muon --out benchmarks/results/muon.json",
    "benchmarks/results/reading.md": "python -m benchmarks.reading --out benchmarks/results/reading.json",
    "benchmarks/results/streaming.md": "python -m benchmarks.streaming",
    "results/augmentation.md": "python -m experiments.augmentation",
    "results/equal_terms/fer2013.md": "python -m experiments.equal_terms",
    "results/equal_terms/ferplus.md": "python -m experiments.equal_terms --data=ferplus",
    "results/explain.md": "python -m benchmarks.explain RUN... --out results/explain.json",
    "results/faces.md": "python -m benchmarks.faces --out results/faces.json",
    "results/fer2013_best_ablation.md": "python -m experiments.ablation",
    "results/fer2013_fast_pieces.md": (
        "python -m benchmarks.time_to_accuracy --out results/fer2013_fast_pieces.json --epochs=3 --seeds=1"
    ),
    "results/noise/cpu.md": "python -m experiments.noise --out=results/noise/cpu",
    "results/noise/probes.md": "python -m experiments.noise --probe --out=results/noise/probes",
    "results/peers.md": "python -m benchmarks.peers --data_dir=FOLDER --fer=PYTHON --npm=FOLDER",
    "results/latency.md": "python -m benchmarks.latency PHOTO --fer=PYTHON",
    **{
        f"results/claims/{name}.md": f"python -m experiments.claims.{name}"
        for name in ("acnn", "compound", "fan", "fdrl", "pdls", "psr", "word2vec")
    },
    "results/scaling.md": "python -m benchmarks.scaling --out results/scaling.json",
    "results/synthetic_faces.md": "python -m tfds_builders.synthetic_faces.verify --out results/synthetic_faces.json",
}
HEADER = (
    "| experiment | seeds | parameters | accuracy, % | mean recall, % | NLL | ECE, % | minutes |\n"
    "|---|---|---|---|---|---|---|---|\n"
)
SUMMARY_HEADER = (
    "| data set | experiment | seeds | parameters | accuracy, % | mean recall, % | minutes |\n"
    "|---|---|---|---|---|---|---|\n"
)


def results_table(folder: pathlib.Path) -> str:
    """Returns the Markdown table of a folder: a row per experiment and variant, mean ± standard deviation."""
    return _with_note(HEADER, [_row(name, runs) for name, runs in _runs(folder).items()])


def summary_table(folder: pathlib.Path) -> str:
    """Returns the Markdown table of all result folders inside a folder."""
    folders = sorted(path for path in folder.glob("*") if path.is_dir())
    return _with_note(
        SUMMARY_HEADER, [_short_row(name, runs) for each in folders for name, runs in _runs(each).items()]
    )


def _runs(folder: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """Returns the runs in a folder, one per seed, by the name of their experiment and variant."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        with readable(path):
            result = json.loads(path.read_text())
            seeds = [result | seed for seed in result.get("seeds", [{}])]  # a sweep of seeds, or a single run
            _row("", seeds)  # a missing field is reported for this file
            runs.setdefault(f"`{result['experiment']}.py:{result['variant']}`", []).extend(seeds)
    return runs


def _with_note(header: str, rows: Sequence[str]) -> str:
    note = OLD_NOTE if any(OLD in row for row in rows) else ""
    return header + "".join(rows) + note if rows else NOT_YET


def _mark(records: Iterable[Mapping[str, Any]]) -> str:
    return OLD if any(is_old(record) for record in records) else ""


MAKERS = {
    "results": results_table,
    "summary": summary_table,
    "speed": lambda folder: speed_table(folder) or NOT_YET,
}


def rewrite(text: str, root: pathlib.Path = ROOT) -> str:
    """Returns `text` with the content of each block replaced.

    Raises:
        UserError: if a file to include is missing, and no command writes it.
    """

    def block(match: re.Match[str]) -> str:
        path = match["path"]
        made = included(path, root) if match["kind"] == "include" else MAKERS[match["kind"]](root / path)
        return match[1] + made + match[4]

    return BLOCK.sub(block, text)


def included(path: str, root: pathlib.Path) -> str:
    """Returns the content of a file that a page includes, or, where it has not been written yet, who writes it.

    Raises:
        UserError: if it is missing and no command is known for it.
    """
    if (root / path).is_file():
        return (root / path).read_text()
    if path not in COMMANDS:
        raise UserError(f"{path}, which a page includes, is missing: write it, or remove its block")
    return f"not measured yet: `{COMMANDS[path]}`\n"


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    """Returns 'mean ± standard deviation' of several seeds, or the only value."""
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _minutes(runs: Sequence[Mapping[str, Any]], key: str) -> str:
    return f"{statistics.mean(run[key] for run in runs) / 60:.1f}"


def _row(name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    def over(key: str, scale: float = 1.0, digits: int = 2) -> str:
        return spread([run[key] for run in runs], scale, digits)

    minutes = _minutes(runs, "wall_seconds")
    if all(run.get("training_seconds") for run in runs):  # missing in older results
        minutes += f", {_minutes(runs, 'training_seconds')} of training"
    return (
        f"| {name}{_mark(runs)} | {_seeds(runs)} | {runs[0]['params']:,} | {over('accuracy', 100)} "
        f"| {over('mean_recall', 100)} | {over('nll', 1, 3)} | {over('ece', 100)} | {minutes} |\n"
    )


def _short_row(name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    accuracy, recall = (spread([run[key] for run in runs], 100, 1) for key in ("accuracy", "mean_recall"))
    return (
        f"| {runs[0]['dataset']} | {name}{_mark(runs)} | {len(runs)} | {runs[0]['params'] / 1e6:.1f} M | {accuracy} "
        f"| {recall} | {_minutes(runs, 'wall_seconds')} |\n"
    )


def _seeds(runs: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(seed) for seed in sorted(run["seed"] for run in runs))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page is out of date")
    print_any_text()
    check = parser.parse_args(arguments).check
    status = 0
    try:
        texts = {page: (ROOT / page).read_text() for page in PAGES}
        pages = {page: (old, rewrite(old, ROOT)) for page, old in texts.items()}
        if unlogged := readings.missing(ROOT):
            if check:
                print(f"{readings.LOG} lacks {unlogged[0][2]}: run python -m docs.tables", file=sys.stderr)
                status = 1
            else:
                with writing(ROOT / readings.LOG):
                    readings.write(ROOT, [*readings.read(ROOT), *unlogged])
        for page, (old, new) in pages.items():
            if check and new != old:
                print(f"{page} does not show the committed results: run python -m docs.tables", file=sys.stderr)
                status = 1
            if not check:
                with writing(ROOT / page):
                    (ROOT / page).write_text(new)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
