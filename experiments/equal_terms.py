"""Compares all methods at an equal budget: FER-2013 from scratch, 40 CPU core-minutes per seed, learning rates tuned.

    python -m experiments.equal_terms --measure --data_dir=FOLDER    # once, on an idle machine: epochs of 40 minutes
    python -m experiments.equal_terms --data_dir=FOLDER              # about 25 core-hours; resumable

`--data=ferplus`, also in two steps, trains the baseline and the three best methods on FER+'s votes.

Methods with a ResNet share its depth, width and stem; pictures, augmentation and batch size are those of
`fer2013_short` in experiments/presets.py, with erasing for all. ACNN and PSR use the narrow networks of their
experiments; ACNN needs the landmarks of `python -m tfds_builders landmarks`, and also trains on an occluded copy of
every picture, as `baseline_occluded` does. Eight of PSR's minutes train its super-resolution.

- The budget: `--measure` writes to OUT/epochs how many epochs 40 core-minutes allow (experiments/equal_budget.py).
- The learning rate: the best of three on public_test after a quarter of the epochs, with seed 0 (OUT/probes); one that
  leaves a class at recall 0 is chosen only if all three do. These runs do not read private_test.
- The model after the last epoch is scored, for all methods: the learning rate has decayed by then, and nothing needs to
  be selected. Each seed scores private_test once, after the last epoch, and `python -m docs.tables` enters that in
  results/private_test_reads.csv. The curves show public_test; from them comes the gain of choosing the best epoch
  instead of the last on the test pictures themselves.

Runs go method by method, so that an interrupted command leaves a valid table. A run whose OUT/runs/METHOD_seedN.json
exists is not trained again.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from experiments import acnn, presets, psr, psr_sr
from experiments.comparison import REMEDY, Run, check_recipe, chosen, facts, finish, packed, positive, read_records
from experiments.equal_budget import core_seconds, here, kept_seconds, measure
from experiments.equal_tables import CONTROL, best_rate, table
from fer_jax.config.fields import Config, assign, variant_config
from fer_jax.data.sources.points import LANDMARKS
from fer_jax.data.sources.source import load as read_source
from fer_jax.data.sources.source import prepared_builder
from fer_jax.errors import Diverged, UserError
from fer_jax.inference.trained import load
from fer_jax.parsing import read_json, read_lines
from fer_jax.training import loop

MINUTES = 40.0  # core-minutes of a seed
PRETRAINING = 8.0  # of those of PSR
PROBE = 0.25  # of the epochs
FACTORS = (1 / 3, 1.0, 3.0)  # of the recipe's learning rate
SPLIT = "public_test"
OWN = {"acnn": acnn, "psr": psr}  # experiments with networks of their own
DATA = {"fer2013": "fer2013_short", "ferplus": "ferplus_short"}
METHODS: dict[str, dict[str, Any]] = {
    CONTROL: {},
    "fdrl": {"method": "fdrl"},
    # As experiments/noise.py found on public_test.
    "eac": {"objective": "eac", "strategy.eac.pair_mode": "independent", "strategy.eac.weight": 2.0},
    "acnn": {"method": "acnn"},
    "baseline_occluded": {"data.occluded_copies": True},  # what ACNN's training pictures do without its gates
    "scn": {"objective": "scn", "strategy.scn.delta1": 0.07},
    "rul": {"method": "rul"},
    "word2vec": {"method": "word2vec", "loss.options.kind": "hybrid", "model.learn_scale": True},  # A3
    "word2vec_a0": {"method": "word2vec"},
    "psr": {
        "method": "psr",
        "preprocessing.standardize": False,  # the pixels of its super-resolution
        "optimizer.groups": ((psr.SLOW, {"lr_multiplier": 0.01}),),
    },
    "nla": {"objective": "nla"},
}
ONCE = ("baseline_occluded", "word2vec_a0")  # one seed
BEST = 3  # methods on FER+
ADAM = {  # of FDRL's paper, in shares of its 40 epochs
    "optimizer.name": "adam",
    "optimizer.learning_rate": 1e-4,
    "optimizer.b1": 0.5,
    "optimizer.weight_decay": 0.0,
    "schedule.name": "step",
    "schedule.boundaries_epochs": (0.25, 0.45, 0.625, 0.8),
}


def recipe(data: str, method: str) -> Config:
    """Returns the config of a method on a data set, with the recipe's learning rate."""
    fields = dict(METHODS[method])
    name = fields.pop("method", "baseline")
    if name in OWN:
        config = OWN[name].get_config(DATA[data])
    else:
        config = variant_config("equal_terms", name, DATA[data], presets.VARIANTS)
    config.augmentation.train = ("shift:2", "flip", "erase:0.5")
    for field, value in fields.items():
        assign(config, field, value)
    return config


def config_of(data: str, method: str, epochs: float, rate: dict[str, Any], seed: int) -> Config:
    """Returns the config of a run of some epochs; `rate` are the fields of its learning rate."""
    config = recipe(data, method)
    for field, value in rate.items():
        assign(config, field, value)
    config.seed = seed
    config.train.epochs = epochs
    config.train.eval_every_epochs = 1.0
    config.selection.rule = "last"
    config.evaluation.flip = False
    config.evaluation.occluded = True
    config.evaluation.report = False
    config.evaluation.bootstrap = 0
    # What sources give in epochs, in shares of the run. Labels are replaced late, as experiments/noise.py found.
    config.strategy.scn.start = 0.8 * epochs if method == "scn" else config.strategy.scn.start
    config.strategy.nla.epochs = epochs / 15 if method == "nla" else config.strategy.nla.epochs
    config.schedule.boundaries_epochs = tuple(epochs * share for share in config.schedule.boundaries_epochs)
    return config


def rates(data: str, method: str) -> dict[str, dict[str, Any]]:
    """Returns the learning rates to try: config fields by the name that tables show."""
    optimizer = recipe(data, method).optimizer
    values = [float(f"{factor * optimizer.learning_rate:.2g}") for factor in FACTORS]
    found = {f"{optimizer.name} {value:g}": {"optimizer.learning_rate": value} for value in values}
    if method != "fdrl":
        return found
    return dict(list(found.items())[:-1]) | {"adam 0.0001": ADAM}  # its paper's, in place of the largest


def probe_config(data: str, method: str, epochs: float, rate: dict[str, Any]) -> Config:
    """Returns the config of a probe of the learning rate: public_test is scored, private_test is not read."""
    config = config_of(data, method, PROBE * epochs, rate, seed=0)
    config.train.eval_every_epochs = config.train.epochs
    config.evaluation.occluded = False
    return without_private_test(config)


def pretraining_config(data: str, epochs: float) -> Config:
    """Returns the config of PSR's super-resolution, which is shared by all of its seeds; private_test is not read."""
    config = psr_sr.get_config(DATA[data])
    config.selection.rule = "last"
    config.train.epochs = epochs
    config.schedule.boundaries_epochs = (0.6 * epochs,)
    config.evaluation.report = False
    config.evaluation.bootstrap = 0
    return without_private_test(config)


def without_private_test(config: Config) -> Config:
    """Tests on public_test, which then selects nothing."""
    config.data.validation_split, config.data.test_split = "", SPLIT
    config.data.holdout_fraction = 0.0
    return config


def trained(config: Config, workdir: epath.Path, data_dir: str) -> dict[str, Any]:
    """Trains or resumes a run; returns its results, with `core_minutes`."""
    config.data.data_dir = data_dir
    with core_seconds(workdir) as spent:
        results = loop.train(config, workdir)
        return results | {"core_minutes": spent() / 60}


def pretrain(config: Config, workdir: epath.Path, data_dir: str) -> dict[str, Any]:
    """Trains PSR's super-resolution and returns its record."""
    results = trained(config, workdir, data_dir)
    measured = {name: results[name] for name in (*results["measures"], "epochs", "core_minutes")}
    return {"method": "psr_sr"} | measured | facts(config, results)


def run(method: str, rate: str, config: Config, workdir: epath.Path, data_dir: str) -> dict[str, Any]:
    """Trains a run, or resumes it, and returns its record."""
    before = workdir.parent / "psr_sr"
    if method == "psr":
        config.init_from = os.fspath(before)
    results = trained(config, workdir, data_dir)
    model = load(os.fspath(workdir))
    test = read_source(model.config.data, model.config.data.test_split, training=False)
    right = model.logits(test).argmax(axis=1) == test.arrays["label"]
    log = read_lines(workdir / "metrics.jsonl")
    record = {
        "method": method,
        "seed": config.seed,
        "learning_rate": rate,
        "split": results["split"],
        "scored_on": datetime.date.today().isoformat(),
        **{name: results[name] for name in ("accuracy", "mean_recall", "nll", "ece", "epochs", "steps")},
        **{name: results[name] for name in ("kl_to_votes",) if name in results},
        "recall": dict(zip(test.classes, results["recall"], strict=True)),
        "behind_objects": results.get("occluded", {}).get("accuracy"),
        "right": packed(right),
        "examples": len(test),
        "curve": [line["accuracy"] for line in log if line["kind"] == "validation"],
        "parameters": results["params"],
        "started_from": "scratch" if results["started_from"] == "scratch" else "psr_sr",
        "core_minutes": results["core_minutes"] + (kept_seconds(before) / 60 if method == "psr" else 0),
    }
    return record | _facts(config, results)


def probe(method: str, rate: str, config: Config, workdir: epath.Path, data_dir: str) -> dict[str, Any]:
    """Returns the record of a probe; if training diverges, it has recognized nothing."""
    began = time.perf_counter()
    try:
        return run(method, rate, config, workdir, data_dir)
    except Diverged as error:
        scores = {"accuracy": 0.0, "mean_recall": 0.0, "recall": {}, "diverged": str(error)}
        record = {"method": method, "seed": config.seed, "learning_rate": rate, "split": SPLIT}
        return record | scores | _facts(config, here(time.perf_counter() - began))


def _facts(config: Config, results: dict[str, Any]) -> dict[str, Any]:
    found = facts(config, results)
    del found["config"]["init_from"]  # a folder of this machine
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=DATA, default="fer2013", help="(default %(default)s)")
    parser.add_argument("--methods", default="", help=f"among {','.join(METHODS)} (default: all; of FER+ the best)")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--measure", action="store_true", help="measure and write how many epochs the budget allows")
    parser.add_argument("--data_dir", default="", help="folder of the prepared data")
    parser.add_argument("--out", type=pathlib.Path, help="(default: results/equal_terms/DATA)")
    parser.add_argument("--workdir", type=epath.Path, help="folder of the runs (default: runs/equal_terms/DATA)")
    given = parser.parse_args(arguments)
    given.out = given.out or pathlib.Path("results/equal_terms", given.data)
    given.workdir = given.workdir or epath.Path("runs/equal_terms") / given.data
    return finish(_measurements(given) if given.measure else _runs(given), given.out, functools.partial(table, METHODS))


def _methods(given: argparse.Namespace) -> list[str]:
    """Returns the methods to train, in order."""
    if given.methods:
        names = chosen(given.methods, METHODS)
    else:
        names = [CONTROL, *best(given.out.parent / "fer2013")] if given.data == "ferplus" else METHODS
    return [method for method in METHODS if method in names]


def best(folder: pathlib.Path) -> list[str]:
    """Returns the most accurate methods of a folder on public_test, of those with several seeds."""
    runs = read_records(folder / "runs", "method")
    scores = {m: np.mean([r["curve"][-1] for r in runs[m]]) for m in runs if m not in (CONTROL, *ONCE)}
    if len(scores) < BEST:
        raise UserError(f"{folder} has records of {len(scores)} methods: train FER-2013 first, or give --methods")
    return sorted(scores, key=lambda method: -scores[method])[:BEST]


def _measurements(given: argparse.Namespace) -> Iterator[Run]:
    for method in _methods(given):
        for name in ("psr_sr", "psr") if method == "psr" else (method,):
            minutes = {"psr_sr": PRETRAINING, "psr": MINUTES - PRETRAINING}.get(name, MINUTES)
            config = _unit(given.data, name)
            yield _epochs(given.out, name), config, functools.partial(measure, config, minutes, given.data_dir)


def _unit(data: str, name: str) -> Config:
    """Returns the config whose steps are measured."""
    return pretraining_config(data, 1.0) if name == "psr_sr" else config_of(data, name, 1.0, {}, seed=0)


def _epochs(out: pathlib.Path, name: str) -> pathlib.Path:
    return out / "epochs" / f"{name}.json"


def _affordable(given: argparse.Namespace, name: str) -> float:
    """Returns the number of epochs that the budget allows, from the record of `--measure`."""
    path = _epochs(given.out, name)
    if not path.exists():
        raise UserError(f"{path} is not there: the same command with --measure writes it, on an idle machine")
    check_recipe(path, _unit(given.data, name))
    return read_json(path, REMEDY, {"epochs": float})["epochs"]


def _check_landmarks(data: str, data_dir: str) -> None:
    """Raises UserError if ACNN would get the points of an average face."""
    config = recipe(data, "acnn").data
    config.data_dir = data_dir
    builder = prepared_builder(config)
    if "landmarks" not in builder.info.features and not (pathlib.Path(builder.data_path) / LANDMARKS).exists():
        raise UserError(
            f"acnn needs landmarks: run `python -m tfds_builders landmarks {config.dataset}`, or leave it out"
        )


def _runs(given: argparse.Namespace) -> Iterator[Run]:
    data, data_dir, methods = given.data, given.data_dir, _methods(given)
    names = [*methods, *(["psr_sr"] if "psr" in methods else [])]
    epochs = {name: _affordable(given, name) for name in names}  # all that is missing is said before hours of training
    if "acnn" in methods:
        _check_landmarks(data, data_dir)
    for method in methods:
        if method == "psr":
            config = pretraining_config(data, epochs["psr_sr"])
            train = functools.partial(pretrain, config, given.workdir / "psr_sr", data_dir)
            yield given.out / "pretraining" / "psr_sr.json", config, train
        tried = rates(data, method)
        for rate, fields in tried.items():
            name = f"{method}_{rate.replace(' ', '_')}"
            config = probe_config(data, method, epochs[method], fields)
            train = functools.partial(probe, method, rate, config, given.workdir / name, data_dir)
            yield given.out / "probes" / f"{name}.json", config, train
        rate = best_rate(read_records(given.out / "probes", "method")[method], tried)
        for seed in range(1 if method in ONCE else given.seeds):
            name, config = f"{method}_seed{seed}", config_of(data, method, epochs[method], tried[rate], seed)
            train = functools.partial(run, method, rate, config, given.workdir / name, data_dir)
            yield given.out / "runs" / f"{name}.json", config, train


if __name__ == "__main__":
    sys.exit(main())
