"""Claims on trial: what a paper says, tested by a controlled experiment on faces whose truth is known.

A trial trains each of its arms with the same seeds, on the same faces, by the same recipe, so that two arms differ in
what the claim is about and in nothing else. Each run has its own work directory and goes through the one training loop:
a stopped trial resumes where it stopped. Differences are paired by seed; their interval is Student's, over the seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.figure import Figure
from scipy.stats import rankdata

from experiments.claims.picture import paired_chart
from fer_jax.config.fields import Config
from fer_jax.engine import compiler
from fer_jax.engine.mesh import device_name
from fer_jax.errors import UserError, print_any_text, writing
from fer_jax.evaluation.metrics import mean_interval
from fer_jax.inference.trained import Trained, load
from fer_jax.parsing import read_json
from fer_jax.report.style import to_png
from fer_jax.runs.workdir import check_owner, git_commit, versions, write_json
from fer_jax.training import loop

ROOT = pathlib.Path(__file__).resolve().parents[2]
Measures = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One difference that the claim is about.

    Attributes:
        measure: its name; `better` says which way the claim wants it.
        ours, theirs: names of the arms; `theirs` may be a number instead, such as 0.5 for chance.
        better: 'higher' or 'lower'.
        scale, unit: of the numbers as they are shown: 100 and '%', for example.
    """

    measure: str
    ours: str
    theirs: str | float
    better: str = "higher"
    scale: float = 1.0
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A claim and how it is tested.

    Attributes:
        name: of the file in experiments/claims/, the results and the picture.
        claim: in one sentence, with the paper.
        arms: by name, a function from the seed to the config of a run with that seed.
        measure: from a trained model to the numbers that the comparisons name; it is given the arm's name too.
        comparisons: what is compared.
        start: the config of a run whose selected model arms begin with, trained once: what the paper pre-trains.
        starting: names of those arms; () is all of them.
        draw: the picture, from the record; by default every comparison, seed by seed.
        seeds: how many.
    """

    name: str
    claim: str
    arms: Mapping[str, Callable[[int], Config]]
    measure: Callable[[str, Trained], Measures]
    comparisons: Sequence[Comparison]
    start: Callable[[], Config] | None = None
    starting: Sequence[str] = ()
    draw: Callable[[Mapping[str, Any]], Figure] = paired_chart
    seeds: int = 5


def main(trial: Trial, arguments: Sequence[str] | None = None) -> int:
    """The command of a claim: `python -m experiments.claims.NAME`."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.claims.{trial.name}", description=trial.claim)
    parser.add_argument("--seeds", type=int, default=trial.seeds, help="runs per arm (default %(default)s)")
    parser.add_argument(
        "--workdir", type=os.path.expanduser, default=f"runs/claims/{trial.name}", help="folder of the runs"
    )
    parser.add_argument(
        "--out", type=os.path.expanduser, default=str(ROOT), help="where results/claims/ and docs/claims/ are"
    )
    parser.add_argument("--max_steps", type=int, default=0, help="stop each run here: to see that everything works")
    parser.add_argument(
        "--from_record", action="store_true", help="compare and draw again what results/claims/ holds, without training"
    )
    print_any_text()
    given = parser.parse_args(arguments)
    try:
        if given.from_record:
            redraw(trial, pathlib.Path(given.out))
            return 0
        if given.seeds < 2:
            raise UserError(f"--seeds={given.seeds}: an interval needs at least 2")
        if given.max_steps and given.out == str(ROOT):
            raise UserError("--max_steps cuts the runs short: give --out=FOLDER, so that no real result is lost")
        run(trial, given.seeds, epath.Path(given.workdir), pathlib.Path(given.out), given.max_steps)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except (loop.Interrupted, KeyboardInterrupt):
        print("stopped; the same command resumes from there", file=sys.stderr)
        return 130
    return 0


def run(trial: Trial, seeds: int, workdir: epath.Path, out: pathlib.Path, max_steps: int = 0) -> dict[str, Any]:
    """Trains and measures every arm with every seed, then writes the record, its table rows and its picture."""
    compiler.use_compilation_cache()
    values: dict[str, list[Measures]] = {arm: [] for arm in trial.arms}
    if trial.start is not None:
        print(f"{trial.name}: what {' and '.join(trial.starting) or 'every arm'} begins with", flush=True)
        loop.train(_cut(trial.start(), max_steps), start_folder(workdir))
    for seed in range(seeds):  # seed by seed: a trial that is cut short has whole pairs
        for arm in trial.arms:
            print(f"{trial.name}: {arm}, seed {seed}", flush=True)
            values[arm].append(_measured(trial, arm, seed, workdir, max_steps))
    record = _record(trial, values, workdir)
    _write(trial, record, out)
    return record


def redraw(trial: Trial, out: pathlib.Path) -> dict[str, Any]:
    """Writes the record of `out` again with the comparisons and the picture of today, from what it has measured.

    Raises:
        UserError: where there is no record, or it lacks what is compared.
    """
    path = record_path(trial, out)
    try:
        record = read_json(path, advice="")
    except UserError as error:
        raise UserError(f"--from_record: {error}; without it the claim is measured") from error
    arms = record["arms"]
    for arm in trial.arms:
        if lacking := _lacking(trial, arm, arms.get(arm, {})):
            raise UserError(f"--from_record: {path} has no '{lacking[0]}' of {arm}: without this option it is measured")
    values = {
        arm: [{name: runs[seed] for name, runs in measures.items()} for seed in range(record["seeds"])]
        for arm, measures in arms.items()
    }
    record |= {"claim": trial.claim, "comparisons": [compare(comparison, values) for comparison in trial.comparisons]}
    _write(trial, record, out)
    return record


def record_path(trial: Trial, out: pathlib.Path) -> pathlib.Path:
    """Returns where the record of a trial is."""
    return out / "results" / "claims" / f"{trial.name}.json"


def run_folder(workdir: epath.Path, arm: str, seed: int) -> epath.Path:
    """Returns the work directory of one run."""
    return workdir / arm.replace(" ", "_") / f"seed{seed}"


def start_folder(workdir: epath.Path) -> epath.Path:
    """Returns the work directory of the run that all arms begin with."""
    return workdir / "start"


def _cut(config: Config, max_steps: int) -> Config:
    config.evaluation.report = False
    config.train.max_steps = max_steps or config.train.max_steps
    return config


def _measured(trial: Trial, arm: str, seed: int, workdir: epath.Path, max_steps: int) -> Measures:
    """Trains one run, unless it is finished, and measures it, unless it has been measured."""
    began = time.perf_counter()
    folder = run_folder(workdir, arm, seed)
    path = folder / "measures.json"
    config = _cut(trial.arms[arm](seed), max_steps)
    if trial.start is not None and arm in (trial.starting or trial.arms):
        config.init_from = str(start_folder(workdir))
    check_owner(folder, config)
    if path.exists() and not _lacking(trial, arm, measures := read_json(path)["measures"]):
        return measures
    results = loop.train(config, folder)
    measures = trial.measure(arm, load(str(folder)))
    measures = {name: float(value) for name, value in ({"accuracy": results["accuracy"]} | measures).items()}
    if lacking := _lacking(trial, arm, measures):
        raise UserError(f"{trial.name}: arm {arm} has no measure '{lacking[0]}'")
    write_json(path, {"measures": measures, "seconds": time.perf_counter() - began})
    return measures


def _lacking(trial: Trial, arm: str, measures: Mapping[str, Any]) -> list[str]:
    """Returns what is compared of an arm and not among its measures."""
    compared = [c.measure for c in trial.comparisons if arm in (c.ours, c.theirs)]
    return [name for name in compared if name not in measures]


def _record(trial: Trial, values: Mapping[str, Sequence[Measures]], workdir: epath.Path) -> dict[str, Any]:
    """Everything that was measured, and the comparisons, as plain JSON."""
    folders = [run_folder(workdir, arm, seed) for arm, runs in values.items() for seed in range(len(runs))]
    seconds = [read_json(folder / "measures.json")["seconds"] for folder in folders]
    if trial.start is not None:
        seconds.append(read_json(start_folder(workdir) / "results.json")["wall_seconds"])
    return {
        "name": trial.name,
        "claim": trial.claim,
        "command": f"python -m experiments.claims.{trial.name}",
        "seeds": len(next(iter(values.values()))),
        "arms": {arm: {name: [m[name] for m in runs] for name in runs[0]} for arm, runs in values.items()},
        "comparisons": [compare(comparison, values) for comparison in trial.comparisons],
        "minutes": sum(seconds) / 60,
        "device": device_name(),
        "versions": versions(),
        "git_commit": git_commit(),
    }


def compare(comparison: Comparison, values: Mapping[str, Sequence[Measures]]) -> dict[str, Any]:
    """The paired difference, its 95 % interval over the seeds, and what it says of the claim."""
    ours = [run[comparison.measure] for run in values[comparison.ours]]
    if isinstance(comparison.theirs, str):
        theirs = [run[comparison.measure] for run in values[comparison.theirs]]
    else:
        theirs = [comparison.theirs] * len(ours)
    differences = np.subtract(ours, theirs)
    low, high = mean_interval(differences)
    sign = 1 if comparison.better == "higher" else -1
    worst, best = sorted((sign * low, sign * high))
    return dataclasses.asdict(comparison) | {
        "ours_mean": statistics.mean(ours),
        "theirs_mean": statistics.mean(theirs),
        "difference": float(differences.mean()),
        "interval": [low, high],
        "verdict": "holds" if worst > 0 else "contradicted" if best < 0 else "undecided",
    }


def roc_auc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of scores [N] for a boolean truth [N]: the chance that a positive ranks higher."""
    count, ranks = int(positive.sum()), rankdata(scores)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(scores) - count)))


def _write(trial: Trial, record: Mapping[str, Any], out: pathlib.Path) -> None:
    """Writes results/claims/NAME.json and docs/claims/NAME.png under `out`."""
    result, picture = record_path(trial, out), out / "docs" / "claims" / f"{trial.name}.png"
    with writing(out, "give another folder with --out"):
        for path in (result, picture):
            path.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(to_png(trial.draw(record)))
        result.write_text(json.dumps(record, indent=1) + "\n")
    for comparison in record["comparisons"]:
        print(sentence(comparison))
    print(f"{result}\n{picture}", flush=True)


def sentence(comparison: Mapping[str, Any]) -> str:
    """A comparison in one line of plain text."""
    scale, unit = comparison["scale"], comparison["unit"]
    low, high = (scale * bound for bound in comparison["interval"])
    return (
        f"{comparison['measure']}: {comparison['ours']} {scale * comparison['ours_mean']:.3g}{unit}, "
        f"{comparison['theirs']} {scale * comparison['theirs_mean']:.3g}{unit}; "
        f"difference {scale * comparison['difference']:+.3g} ({low:+.3g} to {high:+.3g}): {comparison['verdict']}"
    )
