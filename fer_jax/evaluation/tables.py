"""Writes the tables of README.md from committed results: `python -m fer_jax.evaluation.tables [--check]`.

What stands between `<!-- results: FOLDER -->` and `<!-- end -->` is a table of the JSON files that
`run.py --mode=evaluate --output=` wrote into that folder, grouped by experiment over seeds; what stands between
`<!-- include: FILE -->` and `<!-- end -->` is that file, as another command wrote it; what stands between
`<!-- claims: FOLDER -->` and `<!-- end -->` is a table of the records that `python -m experiments.claims.NAME` wrote
there; what stands between `<!-- speed: FOLDER -->` and `<!-- end -->` is the newest that `python -m benchmarks`
measured on each device.
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

from fer_jax.evaluation.speed import speed_table

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/scaling.md")
BLOCK = re.compile(r"(<!-- (?P<kind>results|include|claims|speed): (?P<path>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
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
        result = json.loads(path.read_text())
        seeds = [result | seed for seed in result.get("seeds", [{}])]  # of a sweep of seeds, or the one there is
        runs.setdefault(f"`{result['experiment']}.py:{result['variant']}`", []).extend(seeds)
    return HEADER + "".join(_row(name, seeds) for name, seeds in runs.items())


def claims_table(folder: pathlib.Path) -> str:
    """Returns the Markdown table of all claims on trial in a folder: a row per comparison, a claim to a block."""
    text = CLAIMS_HEADER
    for path in sorted(folder.glob("*.json")):
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


MAKERS = {"results": table, "claims": claims_table, "include": pathlib.Path.read_text, "speed": speed_table}


def rewrite(text: str, root: pathlib.Path = ROOT) -> str:
    """Returns `text` with each block made anew."""

    def block(match: re.Match[str]) -> str:
        return match[1] + MAKERS[match["kind"]](root / match["path"]) + match[4]

    return BLOCK.sub(block, text)


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    """Returns 'mean ± standard deviation' of several seeds, or the one value."""
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _row(name: str, runs: list[dict[str, Any]]) -> str:
    def over(key: str, scale: float = 1.0, digits: int = 2) -> str:
        return spread([run[key] for run in runs], scale, digits)

    seeds = ", ".join(str(run["seed"]) for run in sorted(runs, key=lambda run: run["seed"]))
    minutes = f"{statistics.mean(run['wall_seconds'] for run in runs) / 60:.1f}"
    if all("training_seconds" in run for run in runs):  # older results do not say
        minutes += f", {statistics.mean(run['training_seconds'] for run in runs) / 60:.1f} of training"
    return (
        f"| {name} | {seeds} | {runs[0]['params']:,} | {over('accuracy', 100)} | {over('mean_recall', 100)} "
        f"| {over('nll', 1, 3)} | {over('ece', 100)} | {minutes} |\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a page is out of date")
    check = parser.parse_args(arguments).check
    status = 0
    for page in PAGES:
        old = (ROOT / page).read_text()
        new = rewrite(old)
        if check and new != old:
            print(
                f"{page} does not show the committed results: run python -m fer_jax.evaluation.tables",
                file=sys.stderr,
            )
            status = 1
        if not check:
            (ROOT / page).write_text(new)
    return status


if __name__ == "__main__":
    sys.exit(main())
