"""Writes the tables of README.md from committed results: `python -m fer_jax.evaluation.tables [--check]`.

What stands between `<!-- results: FOLDER -->` and `<!-- end -->` is a table of the JSON files that
`run.py --mode=evaluate --output=` wrote into that folder, grouped by experiment over seeds; what stands between
`<!-- include: FILE -->` and `<!-- end -->` is that file, as another command wrote it; what stands between
`<!-- claims: FOLDER -->` and `<!-- end -->` is a table of the records that `python -m experiments.claims.NAME` wrote
there; what stands between `<!-- speed: FOLDER -->` and `<!-- end -->` is the newest that `python -m benchmarks`
measured on each device. Without results or runs it is 'not measured yet'; a file to include has to be there.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from fer_jax.errors import UserError, writing
from fer_jax.evaluation.speed import readable, speed_table

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/scaling.md")
BLOCK = re.compile(r"(<!-- (?P<kind>results|include|claims|speed): (?P<path>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
NOT_YET = "not measured yet\n"
# What writes a file that a page includes.
COMMANDS = {
    "benchmarks/results/cores.md": "python -m benchmarks.cores",
    "benchmarks/results/main_job.md": "python -m benchmarks.main_job --out benchmarks/results/main_job.json",
    "benchmarks/results/reading.md": "python -m benchmarks.reading --out benchmarks/results/reading.json",
    "benchmarks/results/scaling.md": "python -m benchmarks.scaling --out benchmarks/results/scaling.json",
    "benchmarks/results/streaming.md": "python -m benchmarks.streaming",
    "results/fer2013_fast_pieces.md": (
        "python -m benchmarks.time_to_accuracy --out results/fer2013_fast_pieces.json --epochs=3 --seeds=1"
    ),
    "results/synthetic_faces.md": "python -m tfds_builders.synthetic_faces.verify --out results/synthetic_faces.json",
}
CLAIMS_HEADER = (
    "| claim | measure (claimed) | ours | against | difference (95 % interval) | seeds | the claim |\n"
    "|---|---|---|---|---|---|---|\n"
)
HEADER = (
    "| experiment | seeds | parameters | accuracy, % | mean recall, % | NLL | ECE, % | minutes |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


def table(folder: pathlib.Path) -> str:
    """Returns the Markdown table of all runs in a folder: a row per experiment and variant, mean ± deviation."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        with readable(path):
            result = json.loads(path.read_text())
            seeds = [result | seed for seed in result.get("seeds", [{}])]  # of a sweep of seeds, or the one there is
            _row("", seeds)  # what it lacks is said of this file
            runs.setdefault(f"`{result['experiment']}.py:{result['variant']}`", []).extend(seeds)
    return HEADER + "".join(_row(name, seeds) for name, seeds in runs.items()) if runs else NOT_YET


def claims_table(folder: pathlib.Path) -> str:
    """Returns the Markdown table of all claims on trial in a folder: a row per comparison, a claim to a block."""
    text = CLAIMS_HEADER
    for path in sorted(folder.glob("*.json")):
        with readable(path):
            record = json.loads(path.read_text())
            for number, comparison in enumerate(record["comparisons"]):
                name = f"[{record['claim']}](docs/claims/{path.stem}.png)" if number == 0 else ""
                text += f"| {name} | {_comparison(comparison)} | {record['seeds']} | {comparison['verdict']} |\n"
    return text


def _comparison(comparison: dict[str, Any]) -> str:
    def shown(value: float, sign: str = "") -> str:
        return f"{comparison['scale'] * value:{sign}.3g}"

    unit = comparison["unit"].strip()
    low, high = (shown(bound, "+") for bound in comparison["interval"])
    theirs = comparison["theirs"]
    against = f"{theirs}: {shown(comparison['theirs_mean'])}" if isinstance(theirs, str) else f"{theirs:g}"
    return (
        f"{comparison['measure']}{f', {unit}' if unit else ''} ({comparison['better']}) "
        f"| {comparison['ours']}: {shown(comparison['ours_mean'])} | {against} "
        f"| {shown(comparison['difference'], '+')} ({low} to {high})"
    )


MAKERS = {"results": table, "claims": claims_table, "speed": lambda folder: speed_table(folder) or NOT_YET}


def rewrite(text: str, root: pathlib.Path = ROOT) -> str:
    """Returns `text` with each block made anew.

    Raises:
        UserError: if a file to include is not there.
    """

    def block(match: re.Match[str]) -> str:
        path = match["path"]
        made = included(path, root) if match["kind"] == "include" else MAKERS[match["kind"]](root / path)
        return match[1] + made + match[4]

    return BLOCK.sub(block, text)


def included(path: str, root: pathlib.Path) -> str:
    """Returns the file at a page's `path`, or says which command writes it."""
    if not (root / path).is_file():
        remedy = f"{COMMANDS[path]} writes it" if path in COMMANDS else "write it, or take its block out"
        raise UserError(f"{path}, which a page includes, is not there: {remedy}")
    return (root / path).read_text()


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    """Returns 'mean ± standard deviation' of several seeds, or the one value."""
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _row(name: str, runs: list[dict[str, Any]]) -> str:
    def over(key: str, scale: float = 1.0, digits: int = 2) -> str:
        return spread([run[key] for run in runs], scale, digits)

    def in_minutes(key: str) -> str:  # runs trained side by side share their seconds
        return f"{statistics.mean(run[key] / run.get('side_by_side', 1) for run in runs) / 60:.1f}"

    seeds = ", ".join(str(run["seed"]) for run in sorted(runs, key=lambda run: run["seed"]))
    minutes = in_minutes("wall_seconds")
    if all(run.get("training_seconds") for run in runs):  # older results do not say
        minutes += f", {in_minutes('training_seconds')} of training"
    return (
        f"| {name} | {seeds} | {runs[0]['params']:,} | {over('accuracy', 100)} | {over('mean_recall', 100)} "
        f"| {over('nll', 1, 3)} | {over('ece', 100)} | {minutes} |\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a page is out of date")
    check = parser.parse_args(arguments).check
    status = 0
    try:
        texts = {page: (ROOT / page).read_text() for page in PAGES}
        pages = {page: (old, rewrite(old, ROOT)) for page, old in texts.items()}
        for page, (old, new) in pages.items():
            if check and new != old:
                print(
                    f"{page} does not show the committed results: run python -m fer_jax.evaluation.tables",
                    file=sys.stderr,
                )
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
