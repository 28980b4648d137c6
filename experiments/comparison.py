"""Shared code of experiments that compare several ways of training: resumable runs, records, paired statistics.

Every run writes a record OUT/COLUMN/NAME_seedN.json; a run whose record exists is not trained again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from fer_jax.config.fields import Config, leaves
from fer_jax.engine.allocator import keep_freed_memory
from fer_jax.engine.compiler import use_compilation_cache
from fer_jax.errors import Diverged, UserError, nearest, print_any_text, writing
from fer_jax.parsing import read_json
from fer_jax.runs.workdir import git_commit
from fer_jax.storage import write_whole
from fer_jax.training import loop

DRAWS = 2000  # of the bootstrap
REMEDY = "move it away to train this run again"
Run = tuple[pathlib.Path, Config, Callable[[], dict[str, Any]]]
"""Where the record goes, the config as the recipe has it today, and what trains and returns the record."""


def finish(runs: Iterable[Run], out: pathlib.Path, table: Callable[[pathlib.Path], str]) -> int:
    """Trains the runs that have no record in `out`, writes `table(out)` beside it, and returns an exit status.

    A run that diverges is skipped and the others are trained; the status is then 1.
    """
    print_any_text()
    status = 0
    try:
        git_commit()  # while the files are those that were started
        keep_freed_memory()
        use_compilation_cache()
        for path, config, train in runs:
            if path.exists():
                check_recipe(path, config)
                continue
            print(f"{path.parent.name}, {path.stem}", flush=True)
            try:
                record = train()
            except Diverged as error:
                print(f"error: {path.stem}: {error}", file=sys.stderr, flush=True)
                status = 1
                continue
            _keep(json.dumps(record, indent=1) + "\n", path)
            _keep(table(out), out.with_suffix(".md"))
        _keep(table(out), out.with_suffix(".md"))
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except (loop.Interrupted, KeyboardInterrupt):
        print("stopped; the same command resumes from there", file=sys.stderr)
        return 130
    print(table(out))
    return status


def _keep(text: str, path: pathlib.Path) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)


def check_recipe(path: pathlib.Path, config: Config) -> None:
    """Raises UserError if a record was made with a recipe that differs from the current one."""
    record = read_json(path, REMEDY, {"config": dict})
    both = (record["config"], json.loads(config.to_json()))
    stored, now = (dict(leaves(ml_collections.ConfigDict(values), ())) for values in both)
    if differ := [f for f in stored if stored[f] != now.get(f)]:  # fields that came later are at rest
        raise UserError(f"{path} has another config.{differ[0]} than this recipe: move {path.parents[1]} away")


def chosen(text: str, known: Collection[str]) -> list[str]:
    """Returns the names in a comma-separated list."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UserError(f"there is no '{name}'; {nearest(name, known)}")
    if not names:
        raise UserError(f"an empty list: give some of {', '.join(known)}")
    return names


def positive(text: str) -> int:
    """Returns a whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("give a whole number of at least 1")
    return int(text)


def facts(config: Config, results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the last fields of a record: duration, config, command and machine of a run, from its results.json.

    Folders are left out, because they describe the machine and not the run.
    """
    where = {name: results[name] for name in ("device", "versions", "git_commit")}
    recipe = json.loads(config.to_json())
    del recipe["data"]["data_dir"]
    return {"minutes": results["wall_seconds"] / 60, "config": recipe, "command": command()} | where


def command() -> str:
    """Returns the command that this process was started with, without the options that name folders."""
    parser, module = argparse.ArgumentParser(add_help=False, allow_abbrev=False), sys.modules["__main__"].__spec__
    for option in ("--out", "--workdir", "--data_dir"):
        parser.add_argument(option)
    start = f"-m {module.name}" if module else pathlib.Path(sys.argv[0]).name
    return " ".join(["python", start, *parser.parse_known_args(sys.argv[1:])[1]])


def origin(records: Sequence[Mapping[str, Any]], tests: Iterable[int]) -> str:
    """Returns a line about the origin of records, to print below their table; where they differ it lists all values.

    Args:
        records: with what `facts` returns; older ones have no command.
        tests: number of test examples of each.
    """

    def listed(values: Iterable[Any]) -> str:
        return " or ".join(dict.fromkeys(map(str, values)))

    def versions(record: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {version}" for name, version in record["versions"].items())

    def rule(record: Mapping[str, Any]) -> str:
        selection, data = record["config"]["selection"]["rule"], record["config"]["data"]
        return selection if selection == "last" else f"{selection} on {data['validation_split'] or 'held-out examples'}"

    parts = {
        "command": listed(f"`{record['command']}`" for record in records if "command" in record),
        "commit": listed(record["git_commit"] for record in records),
        "device": listed(record["device"] for record in records),
        "versions": listed(map(versions, records)),
        "seeds": ", ".join(map(str, sorted({record["seed"] for record in records}))),
        "test examples": listed(f"{count:,}" for count in tests),
        "selection": listed(map(rule, records)),
    }
    text = "; ".join(f"{name}: {value}" for name, value in parts.items() if value)
    return f"{text[0].upper()}{text[1:]}."


def packed(right: np.ndarray) -> str:
    """Returns which examples are classified correctly, bool [N], encoded as text; `unpacked` decodes it."""
    return np.packbits(right).tobytes().hex()


def unpacked(records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Returns which test examples each seed classifies correctly, float [S, N]."""
    bits = [np.frombuffer(bytes.fromhex(record["right"]), np.uint8) for record in records]
    return np.stack([np.unpackbits(b)[: records[0]["examples"]] for b in bits]).astype(float)


def read_records(folder: pathlib.Path, key: str, **fields: type) -> dict[str, list[dict[str, Any]]]:
    """Returns the records of a folder that have these fields, grouped by their value of `key`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        record = read_json(path, REMEDY, {key: str, **fields})
        found.setdefault(record[key], []).append(record)
    return found


def mean(records: Sequence[Mapping[str, Any]], name: str) -> float:
    """Returns the mean of a field over records."""
    return float(np.mean([record[name] for record in records]))


def percent(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns the accuracy in percent: its mean over seeds, and its standard deviation where there are several."""
    accuracies = [100 * record["accuracy"] for record in records]
    return f"{np.mean(accuracies):.1f}" + (f" ± {np.std(accuracies, ddof=1):.1f}" if len(records) > 1 else "")


def against(
    control: Sequence[Mapping[str, Any]], others: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, tuple[str, str]]:
    """Returns the difference of each other method from the control in points, with a 95 % interval and p (Holm)."""
    found = {name: paired(unpacked(control), unpacked(records)) for name, records in others.items()}
    adjusted = holm({name: values[3] for name, values in found.items()})
    points = {name: [f"{100 * value:+.1f}" for value in values[:3]] for name, values in found.items()}
    return {name: (f"{d} ({low} to {high})", f"{adjusted[name]:.3f}") for name, (d, low, high) in points.items()}


def table_of_arms(folder: pathlib.Path, title: str, control: str, *groups: Iterable[str]) -> str:
    """Returns a table of the records in a folder, grouped by their `arm`; "" if there is none of the control.

    Args:
        folder: of the records.
        title: of the column of arms.
        control: the arm that the others are compared with.
        groups: of arms, in the table's order: a group is compared on the seeds that all of its arms have.
    """
    runs = read_records(folder, "arm")
    if control not in runs:
        return ""
    differences: dict[str, tuple[str, str]] = {}
    for group in groups:
        here = {arm: runs[arm] for arm in (control, *group) if arm in runs}
        seeds = set.intersection(*({record["seed"] for record in records} for records in here.values()))
        same = {arm: [record for record in records if record["seed"] in seeds] for arm, records in here.items()}
        differences |= against(same.pop(control), same) if seeds else {}
    lines = [
        f"| {title} | seeds | accuracy, % | to {control}, points | p | mean recall, % | NLL | ECE, % | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    shown = [arm for arm in dict.fromkeys([control, *itertools.chain(*groups)]) if arm in runs]
    for arm, records in ((arm, runs[arm]) for arm in shown):
        cells = [arm, str(len(records)), percent(records), *differences.get(arm, ("", ""))]
        cells += [f"{100 * mean(records, 'mean_recall'):.1f}", f"{mean(records, 'nll'):.3f}"]
        cells += [f"{100 * mean(records, 'ece'):.1f}", f"{mean(records, 'minutes'):.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    every = [record for arm in shown for record in runs[arm]]
    return "\n".join([*lines, "", origin(every, [record["examples"] for record in every])]) + "\n"


def paired(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float, float]:
    """Returns the gain in accuracy of `second` [S, N], its 95 % interval, and p for the hypothesis of no difference.

    The bootstrap draws examples, the same ones for both, and of each the seeds, all with replacement; deviations of
    the mean over S seeds are multiplied by sqrt(S / (S - 1)), because so few draws vary too little.
    """
    generator, count = np.random.default_rng(0), first.shape[1]

    def drawn_seeds(right: np.ndarray) -> np.ndarray:
        seeds, mean = len(right), right.mean(axis=0)
        if seeds == 1:
            return mean
        return mean + np.sqrt(seeds / (seeds - 1)) * (right[generator.integers(seeds, size=seeds)].mean(axis=0) - mean)

    drawn = np.empty(DRAWS)
    for draw in range(DRAWS):
        difference = drawn_seeds(second) - drawn_seeds(first)
        drawn[draw] = difference[generator.integers(count, size=count)].mean()
    low, high = np.percentile(drawn, (2.5, 97.5))
    p = min(1.0, 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (DRAWS + 1))
    return float((second.mean(axis=0) - first.mean(axis=0)).mean()), float(low), float(high), p


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Returns the p-values corrected for multiple testing (Holm 1979)."""
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda key: p[key])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = largest
    return adjusted
