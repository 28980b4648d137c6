"""Claims on trial: what a paper says, tested by a controlled experiment on faces whose truth is known.

Every seed draws new people and new faces for training, for the held-out part and for the test, and trains each arm on
them by the same recipe. Before that, on the data of one more seed, each arm is trained at 1/2, 1 and 2 times the
recipe's learning rate, of which it keeps the most accurate. The control comes first, and then with four times the
steps: where it reaches less than 90 % of that accuracy it is under-trained, and nothing more is trained or tested.

Every run leaves OUT/ARM_seedN.json, or one in OUT/probes; a run that has its record is not trained again. OUT.md has
the table and OUT.png the picture, made from the records that there are.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import datetime
import functools
import itertools
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from experiments.claims import picture
from experiments.claims.statistics import Difference, difference, verdict
from experiments.comparison import REMEDY, Run, facts, finish, holm, origin, positive, read_records
from experiments.equal_budget import here
from experiments.equal_terms import without_private_test
from fer_jax.config.fields import Config
from fer_jax.data.sources.source import Source
from fer_jax.data.sources.source import load as load_split
from fer_jax.errors import Diverged, UserError
from fer_jax.inference.trained import Trained, load
from fer_jax.parsing import read_json
from fer_jax.training import loop

FOLDER = pathlib.Path("results/claims")
FACES = {"synthetic_faces/basic": (6000, 6000), "synthetic_faces/clips": (1600, 2100)}  # of training and test
PROBE, FIRST = 999, 1000  # seed of the data of probes; of the data of seed 0
RATES = (1.0, 0.5, 2.0)  # of the recipe's learning rate; the first one where they are as good
LONGER, TRAINED = 4, 0.9
NOT_TESTED = "not tested"
Measures = Mapping[str, float | np.ndarray]
"""A number for all test examples, or the value of each, [N], whose mean is the measure (`statistics`)."""
FIELDS = {"seed": int, "measures": dict, "sums": dict, "examples": str, "minutes": float}  # of a record
Records = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One difference that a claim is about.

    Attributes:
        says: the claim in one sentence.
        measure: its name; `better` says which way the claim wants it.
        ours, theirs: names of the arms; `theirs` may be a number instead, such as 0.5 for chance.
        margin: a difference smaller than this is none.
        better: 'higher' or 'lower'.
        scale, unit: of the numbers as they are shown: 100 and 'points', for example.
    """

    says: str
    measure: str
    ours: str
    theirs: str | float
    margin: float
    better: str = "higher"
    scale: float = 1.0
    unit: str = ""


POINTS: dict[str, Any] = {"margin": 0.02, "scale": 100.0, "unit": "points"}
AUC: dict[str, Any] = {"margin": 0.02, "unit": "AUC"}


@dataclasses.dataclass(frozen=True)
class Trial:
    """A claim and how it is tested.

    Attributes:
        name: of the file in experiments/claims/ and of the results.
        claim: in one sentence, with the paper.
        arms: by name, a function from the seed to the config of a run with that seed.
        measure: from an arm's name, its trained model and the test split to what the comparisons name; `accuracy` is
            there without it.
        control: the arm whose training decides whether anything is tested.
        comparisons: the primary one and at most three others.
        attainable: the positive control, which is told the truth or trained on what is tested: where it has no effect
            either, nothing is tested.
        start: the config of a run whose model arms begin with: what the paper pre-trains.
        starting: names of those arms; () is all of them.
        seeds: how many.
        new_faces: whether each seed has people of its own; false for data sets of real faces.
    """

    name: str
    claim: str
    arms: Mapping[str, Callable[[int], Config]]
    measure: Callable[[str, Trained, Source], Measures]
    control: str
    comparisons: Sequence[Comparison]
    attainable: Comparison | None = None
    start: Callable[[int], Config] | None = None
    starting: Sequence[str] = ()
    seeds: int = 5
    new_faces: bool = True


@dataclasses.dataclass(frozen=True)
class Row:
    """A comparison as it came out, with the means of the two arms; `found` is None until two seeds are recorded."""

    comparison: Comparison
    verdict: str
    found: Difference | None = None
    means: tuple[float, float] = (0.0, 0.0)
    p: float = 1.0


def main(trial: Trial, arguments: Sequence[str] | None = None) -> int:
    """The command of a claim: `python -m experiments.claims.NAME`."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.claims.{trial.name}", description=trial.claim)
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER / trial.name, help="records (default %(default)s)")
    parser.add_argument("--seeds", type=positive, default=trial.seeds, help="runs per arm (default %(default)s)")
    parser.add_argument("--workdir", type=epath.Path, default=f"runs/claims/{trial.name}", help="folder of the runs")
    parser.add_argument("--data_dir", default="", help="folder of the prepared data")
    parser.add_argument("--max_steps", type=positive, help="stop each run here: to see that everything works")
    parser.add_argument("--table", action="store_true", help="train nothing: table and picture of the records so far")
    given = parser.parse_args(arguments)
    status = finish(() if given.table else _runs(trial, given), given.out, functools.partial(table, trial))
    if status < 2 and (tested := [row for row in rows(trial, given.out) if row.found]):
        picture.write(tested, given.out.with_suffix(".png"))
    return status


def _runs(trial: Trial, given: argparse.Namespace) -> Iterator[Run]:
    """Yields the control's probes, those of the other arms, and the runs seed by seed, so that each is compared."""
    if given.max_steps and given.out == FOLDER / trial.name:
        raise UserError("--max_steps cuts the runs short: give --out=FOLDER, so that no real result is lost")
    yield from _probes(trial, given, [trial.control])
    share = trained_share(trial, given.out)
    if not given.max_steps and (share is None or share < TRAINED):
        reached = "diverges with" if share is None else f"reaches {share:.0%} of its accuracy after"
        print(f"{NOT_TESTED} at this size: {trial.control} {reached} {LONGER} times the steps", flush=True)
        return
    yield from _probes(trial, given, [arm for arm in trial.arms if arm != trial.control])
    for seed, arm in itertools.product(range(given.seeds), trial.arms):
        yield _run(trial, given, arm, seed, best_rate(given.out, arm))


def _probes(trial: Trial, given: argparse.Namespace, arms: Sequence[str]) -> Iterator[Run]:
    for arm, rate in itertools.product(arms, RATES):
        yield _run(trial, given, arm, PROBE, rate)
    if trial.control in arms:
        yield _run(trial, given, trial.control, PROBE, best_rate(given.out, trial.control), LONGER)


def _run(trial: Trial, given: argparse.Namespace, arm: str, seed: int, rate: float, times: int = 1) -> Run:
    path = given.out / f"{_file(arm)}_seed{seed}.json" if seed != PROBE else _probe(given.out, arm, rate, times)
    config = complete(trial, trial.arms[arm](seed), seed, given.max_steps)
    config.optimizer.learning_rate *= rate
    config.train.epochs *= times
    config.train.max_steps *= times
    start = None
    if trial.start is not None and arm in (trial.starting or trial.arms):
        start = complete(trial, trial.start(seed), seed, given.max_steps)
    return path, config, functools.partial(_record, trial, arm, config, start, given, path.stem)


def complete(trial: Trial, config: Config, seed: int, max_steps: int | None = None) -> Config:
    """Returns a config with what all runs of a trial have in common: the data of its seed, how many, and no report."""
    config.experiment, config.seed = f"claims/{trial.name}", seed
    if trial.new_faces:
        config.data.builder.seed = PROBE if seed == PROBE else FIRST + seed
        config.data.builder.train, config.data.builder.test = FACES[config.data.dataset]
    elif seed == PROBE:
        config.selection.rule = "last"
        without_private_test(config)
    config.evaluation.report, config.evaluation.bootstrap = False, 0
    config.train.max_steps = max_steps or config.train.max_steps
    return config


def _record(
    trial: Trial, arm: str, config: Config, start: Config | None, given: argparse.Namespace, name: str
) -> dict[str, Any]:
    """Trains a run, or resumes it, and measures it, unless it is a probe; one that diverges has no accuracy at all."""
    began, placed = time.perf_counter(), copy.deepcopy(config)
    placed.data.data_dir = given.data_dir
    if start is not None:
        start.data.data_dir = given.data_dir
        placed.init_from = os.fspath(given.workdir / f"start_seed{config.seed}")
        loop.train(start, epath.Path(placed.init_from))
    try:
        results = loop.train(placed, given.workdir / name)
    except Diverged:
        if not name.endswith("_steps1"):  # only a learning rate that is tried may be too large
            raise
        results = here(time.perf_counter() - began) | {"accuracy": 0.0}
    record = {"arm": arm, "seed": config.seed, "accuracy": results["accuracy"]}
    if config.seed != PROBE:
        record |= {"mean_recall": results["mean_recall"], "scored_on": datetime.date.today().isoformat()}
        model = load(os.fspath(given.workdir / name))
        test = load_split(model.config.data, model.config.data.test_split, training=False)
        right = model.logits(test).argmax(axis=1) == test.arrays["label"]
        record |= by_person({"accuracy": right.astype(float), **trial.measure(arm, model, test)}, test)
    return record | facts(config, results)


def by_person(measures: Measures, test: Source) -> dict[str, Any]:
    """Returns `measures`, and for each person the number of examples and the sums of their values, as text."""
    subject = test.arrays.get("subject", np.arange(len(test)))
    people = np.unique(subject, return_inverse=True)[1]
    sums = {
        name: _text(np.bincount(people, weights=values))
        for name, values in measures.items()
        if isinstance(values, np.ndarray)
    }
    means = {name: float(np.mean(values)) for name, values in measures.items()}
    return {"measures": means, "examples": _text(np.bincount(people)), "sums": sums}


def best_rate(out: pathlib.Path, arm: str) -> float:
    """Returns the learning rate of an arm, as a multiple of the recipe's, at which its probe was most accurate."""
    return max(RATES, key=lambda rate: read_json(_probe(out, arm, rate), REMEDY, {"accuracy": float})["accuracy"])


def trained_share(trial: Trial, out: pathlib.Path) -> float | None:
    """Returns which share the control reaches of its accuracy after four times the steps; None before its probes."""
    if not all(_probe(out, trial.control, rate).exists() for rate in RATES):
        return None
    rate = best_rate(out, trial.control)
    once, longer = (_probe(out, trial.control, rate, times) for times in (1, LONGER))
    if not longer.exists():
        return None
    return read_json(once, REMEDY)["accuracy"] / read_json(longer, REMEDY, {"accuracy": float})["accuracy"]


def rows(trial: Trial, out: pathlib.Path) -> list[Row]:
    """Returns every comparison as it came out, p corrected for their number (Holm), then the positive control."""
    records, share = read_records(out, "arm", **FIELDS), trained_share(trial, out)
    families = (trial.comparisons, [trial.attainable] if trial.attainable else [])
    asked = [comparison for family in families for comparison in family]
    if share is None or any(len(_seeds(comparison, records)) < 2 for comparison in asked):
        return [Row(comparison, f"{NOT_TESTED} at this size") for comparison in asked]
    made = [row for family in families for row in _judged(trial, family, records)]
    if share < TRAINED:
        return [dataclasses.replace(row, verdict=f"{NOT_TESTED}: the control is under-trained") for row in made]
    if trial.attainable is None or made[-1].verdict == "supported":
        return made
    unseen = f"{NOT_TESTED}: the positive control has no effect either"
    return [dataclasses.replace(row, verdict=unseen) if row.verdict == "no effect" else row for row in made]


def _seeds(comparison: Comparison, records: Records) -> list[int]:
    """Returns the seeds that all arms of a comparison have."""
    arms = [arm for arm in (comparison.ours, comparison.theirs) if isinstance(arm, str)]
    return sorted(set.intersection(*({record["seed"] for record in records.get(arm, ())} for arm in arms)))


def _judged(trial: Trial, family: Sequence[Comparison], records: Records) -> list[Row]:
    compared = [(comparison, *_compared(trial, comparison, records)) for comparison in family]
    p, p_same = (holm({c.says: getattr(found, name) for c, found, _ in compared}) for name in ("p", "p_same"))
    return [
        Row(c, verdict(found.mean, p[c.says], p_same[c.says], c.better), found, means, p[c.says])
        for c, found, means in compared
    ]


def _compared(trial: Trial, comparison: Comparison, records: Records) -> tuple[Difference, tuple[float, float]]:
    """Returns the difference of two arms, and the mean of each."""
    seeds, measure = _seeds(comparison, records), comparison.measure
    runs = [record for record in records[comparison.ours] if record["seed"] in seeds]
    runs.sort(key=lambda record: record["seed"])
    counts = [_numbers(record["examples"]) for record in runs]
    ours = [_sums(record, measure) for record in runs]
    if isinstance(comparison.theirs, str):
        others = {record["seed"]: record for record in records[comparison.theirs]}
        theirs = [_sums(others[seed], measure) for seed in seeds]
    else:
        theirs = [comparison.theirs * count for count in counts]
    found = difference([a - b for a, b in zip(ours, theirs, strict=True)], counts, comparison.margin, trial.new_faces)
    means = [float(np.mean([s.sum() / c.sum() for s, c in zip(arm, counts, strict=True)])) for arm in (ours, theirs)]
    return found, (means[0], means[1])


def _sums(record: Mapping[str, Any], measure: str) -> np.ndarray:
    """Returns the sums over the examples of each person; raises UserError where it was not measured."""
    if measure in record["sums"]:
        return _numbers(record["sums"][measure])
    if measure not in record["measures"]:
        raise UserError(f"the record of {record['arm']}, seed {record['seed']}, has no '{measure}': {REMEDY}")
    return record["measures"][measure] * _numbers(record["examples"])  # one number for all


def table(trial: Trial, out: pathlib.Path) -> str:
    """Returns what is known of a claim as Markdown: each comparison, how well the control is trained, each arm."""
    made, records, share = rows(trial, out), read_records(out, "arm", **FIELDS), trained_share(trial, out)
    lines = [f"**{trial.claim}**", ""]
    lines += ["| claim | ours | against | difference (95 % interval) | margin | p | seeds | verdict |"]
    lines += ["|---|---|---|---|---|---|---|---|", *(_line(trial, row) for row in made), ""]
    if any(row.found for row in made):
        lines += [f"![Differences with their intervals and margins](../{FOLDER}/{trial.name}.png)", ""]
    if share is not None:
        lines += [f"Control: {trial.control}, {share:.0%} of its accuracy after {LONGER} times the steps.", ""]
    if records:
        names = list(dict.fromkeys(n for runs in records.values() for run in runs for n in run["measures"]))
        lines += [f"| arm | seeds | learning rate | {' | '.join(names)} |", "|---" * (len(names) + 3) + "|"]
        for arm, runs in ((arm, records[arm]) for arm in trial.arms if arm in records):
            cells = [arm, str(len(runs)), f"x {best_rate(out, arm):g}"]
            measured = [[run["measures"].get(name) for run in runs] for name in names]
            cells += ["" if None in values else f"{np.mean(values):.3g}" for values in measured]
            lines.append(f"| {' | '.join(cells)} |")
        every = [record for runs in records.values() for record in runs]
        minutes = sum(record["minutes"] for record in every)
        lines += ["", f"{minutes:.0f} minutes of training, probes and pre-training not counted. "]
        lines[-1] += origin(every, (int(_numbers(record["examples"]).sum()) for record in every))
    return "\n".join(lines).rstrip() + "\n"


def _line(trial: Trial, row: Row) -> str:
    asked, found = row.comparison, row.found
    says = asked.says + (" (positive control)" if asked is trial.attainable else "")
    margin = f"{asked.scale * asked.margin:g} {asked.unit}"
    if found is None:
        return f"| {says} | | | | {margin} | | | {row.verdict} |"
    ours, theirs, *bounds = (asked.scale * value for value in (*row.means, found.mean, *found.interval))
    mean, low, high = (f"{value:+.3g}" for value in bounds)
    against = f"{asked.theirs}: {theirs:.3g}" if isinstance(asked.theirs, str) else f"{theirs:g}"
    cells = [says, f"{asked.ours}: {ours:.3g}", against, f"{mean} ({low} to {high}) {asked.unit}", margin]
    return f"| {' | '.join([*cells, f'{row.p:.3f}', str(len(found.by_seed)), row.verdict])} |"


def _probe(out: pathlib.Path, arm: str, rate: float, times: int = 1) -> pathlib.Path:
    return out / "probes" / f"{_file(arm)}_rate{rate:g}_steps{times}.json"


def _file(arm: str) -> str:
    return re.sub(r"\W+", "_", arm)


def _text(numbers: np.ndarray) -> str:
    return " ".join(f"{number:.5g}" for number in numbers)


def _numbers(text: str) -> np.ndarray:
    return np.array(text.split(), float)
