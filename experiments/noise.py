"""Methods for ambiguous labels on equal terms: FER+'s pictures, whose true labels are known, with labels made wrong.

    python -m experiments.noise --out results/noise/cpu --columns=clean,symmetric30,real --data_dir=FOLDER

FER-2013's own labels agree with the majority of FER+'s ten annotators on two thirds of the pictures: the column `real`
trains on them, `symmetric10` to `symmetric30` on labels of FER+ that were changed at random, `matrix` on labels drawn
from how often FER-2013 gives each class, given that of FER+ (class-dependent, but blind to the picture). All are tested
on FER+'s majority. Every method trains the same network for the same epochs, and the last epoch counts: nothing is
selected. The accuracy after every epoch is that on public_test, from which come the mean of the last five epochs and
what choosing the best epoch on the tested pictures would add. private_test is scored after the last epoch alone.

A comparison says something only where cross-entropy memorizes: `memorized` is the share of the wrongly labeled training
pictures for which the last model repeats the wrong label. Every run leaves OUT/COLUMN/METHOD_seedN.json; a run that has
its file is not trained again.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from experiments import presets
from experiments.comparison import Run, against, chosen, facts, finish, mean, packed, percent, read_records
from fer_jax.config.fields import Config, assign, variant_config
from fer_jax.data.sources.source import load as read_source
from fer_jax.data.targets.label_noise import fer2013_labels
from fer_jax.inference.trained import load
from fer_jax.parsing import read_lines
from fer_jax.training import loop
from fer_jax.training.examples import read_examples

CONTROL = "cross-entropy"
MEMORIZED = 0.3  # by the control, for a column to say something
COLUMNS: dict[str, dict[str, Any]] = {
    "clean": {},
    "symmetric10": {"data.label_noise": "symmetric", "data.label_noise_rate": 0.1},
    "symmetric20": {"data.label_noise": "symmetric", "data.label_noise_rate": 0.2},
    "symmetric30": {"data.label_noise": "symmetric", "data.label_noise_rate": 0.3},
    "real": {"data.label_noise": "fer2013"},
    "matrix": {"data.label_noise": "matrix", "data.label_noise_file": "fer2013"},
}
WRONG = {"clean": 0.0, "symmetric10": 0.1, "symmetric20": 0.2, "symmetric30": 0.3, "real": 0.32, "matrix": 0.32}
METHODS: dict[str, dict[str, Any]] = {
    CONTROL: {},
    "correction": {"objective": "correction"},
    "scn": {"objective": "scn", "strategy.scn.delta1": 0.07},
    "rul": {"method": "rul", "objective": "relabel", "model.keep_sigma": True},
    "eac": {"objective": "eac", "strategy.eac.pair_mode": "independent"},
    "nla": {"objective": "nla"},
    "small_loss": {"objective": "small_loss"},
    "smoothing": {"data.label_smoothing": 0.1},
}


def recipe(method: str = "baseline") -> Config:
    """Two CPU cores: 6,000 pictures of 48 pixels, a ResNet-18 of width 24, 50 epochs.

    The last map has 2x2 places, which is little for the attention that EAC compares.
    """
    config = variant_config("noise", method, "ferplus_short", presets.VARIANTS)
    config.data.target = "majority"
    config.data.drop_classes = ("contempt",)
    config.data.examples = 6000
    config.data.validation_split = "public_test"
    config.selection.rule = "last"
    config.augmentation.train = ("shift:2", "flip", "erase:0.5")
    config.model.width = 24
    config.train.epochs = 50.0
    config.train.eval_every_epochs = 1.0
    config.evaluation.flip = False
    config.evaluation.report = False
    config.evaluation.bootstrap = 0
    return config


def config_of(column: str, method: str, seed: int) -> Config:
    """Returns the config of one run; the noise is the same for every method and seed."""
    fields = dict(METHODS[method])
    config = recipe(fields.pop("method", "baseline"))
    for field, value in (COLUMNS[column] | fields).items():
        assign(config, field, value)
    config.seed = seed
    if method == "small_loss":  # it is told the share of wrong labels
        config.strategy.small_loss.tau = WRONG[column]
    if method == "correction" and column not in ("real", "matrix"):
        config.strategy.correction.matrix = "estimated"
        config.strategy.correction.anchors = 10  # the rarest class has 25 pictures
    if method == "nla":  # as fast, in shares of the run, as in the authors' 60 epochs
        config.strategy.nla.epochs = config.train.epochs / 15
    return config


def run(column: str, method: str, seed: int, workdir: epath.Path, data_dir: str) -> dict[str, Any]:
    """Trains one run, or resumes it, and returns its record."""
    config = config_of(column, method, seed)
    config.data.data_dir = data_dir
    results = loop.train(config, workdir)
    model = load(os.fspath(workdir))
    train, _, noise = read_examples(model.config)
    test = read_source(model.config.data, model.config.data.test_split, training=False)
    curve = [line["accuracy"] for line in read_lines(workdir / "metrics.jsonl") if line["kind"] == "validation"]
    predicted, answers = (model.logits(source).argmax(axis=1) for source in (train, test))
    record = {
        "column": column,
        "method": method,
        "seed": seed,
        "accuracy": results["accuracy"],
        "accuracy_by_fer2013": float((answers == fer2013_labels(test)).mean()),
        "mean_recall": results["mean_recall"],
        "recall": dict(zip(test.classes, results["recall"], strict=True)),
        "right": packed(answers == test.arrays["label"]),
        "examples": len(test),
        "curve": curve,
        "training_accuracy": float((predicted == train.arrays["label"]).mean()),
        "noise": noise,
    }
    if noise:
        wrong = train.arrays["label"] != train.arrays["clean_label"]
        record["memorized"] = float((predicted == train.arrays["label"])[wrong].mean())
        record["recovered"] = float((predicted == train.arrays["clean_label"])[wrong].mean())
    return record | facts(config, results["wall_seconds"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default="results/noise/cpu")
    parser.add_argument("--columns", default="clean,symmetric30,real", help=f"among {','.join(COLUMNS)}")
    parser.add_argument("--methods", default=",".join(METHODS), help="(default: all) %(default)s")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data_dir", default="", help="folder of the prepared data")
    parser.add_argument("--workdir", type=epath.Path, default="runs/noise", help="folder of the runs")
    given = parser.parse_args(arguments)
    return finish(_runs(given), given.out, table)


def _runs(given: argparse.Namespace) -> Iterator[Run]:
    """Yields the runs seed by seed and column by column: what is cut short has whole comparisons."""
    columns, methods = chosen(given.columns, COLUMNS), chosen(given.methods, METHODS)
    ordered = [CONTROL, *(name for name in methods if name != CONTROL)]
    for seed, column, method in itertools.product(range(given.seeds), columns, ordered):
        place = pathlib.Path(column) / f"{method}_seed{seed}"
        train = functools.partial(run, column, method, seed, given.workdir / place, given.data_dir)
        yield given.out / place.with_suffix(".json"), config_of(column, method, seed), train


NOTES = """\
`truth` is FER+'s majority on private_test after the last epoch; `FER-2013` the same answers against FER-2013's own
labels. The mean of the last five epochs, and what the best epoch would add to the last, are measured on public_test.
Differences are paired by picture, with a bootstrap over pictures and seeds, p corrected for the number of methods
(Holm). `correction` is given T in `real` and `matrix` and estimates it elsewhere; `small_loss` is told the share of
wrong labels. A part of what counts as wrong in `real` is another way of labeling (neutral faces called sad, afraid or
angry), not chance.
"""


def table(folder: pathlib.Path) -> str:
    """Returns a table for each column, from the records in a folder: each method beside the control."""
    lines = [NOTES]
    for column in COLUMNS:
        runs = read_records(folder / column, "method")
        if CONTROL in runs:
            lines += _column(column, {method: runs[method] for method in METHODS if method in runs})
    return "\n".join(lines) + "\n"


def _column(column: str, runs: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    control = runs[CONTROL]
    noise, remembered = control[0]["noise"], mean(control, "memorized") if control[0]["noise"] else 1.0
    share = f", {noise['changed_share']:.1%} of the training labels are wrong" if noise else ""
    lines = [f"**{column}**{share}", ""]
    if remembered < MEMORIZED:
        lines += [f"Not tested: cross-entropy repeats only {remembered:.0%} of the wrong labels.", ""]
    lines += [
        "| method | seeds | truth, % | to cross-entropy, points | p | mean recall, % | FER-2013, % | "
        "last five epochs, % | best epoch adds | memorized, % | recovered, % |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    others = {name: records for name, records in runs.items() if name != CONTROL}
    differences = against(control, others) if remembered >= MEMORIZED else {}
    for name, records in runs.items():
        curves = np.array([record["curve"] for record in records])
        five, best = curves[:, -5:].mean(), (curves.max(axis=1) - curves[:, -1]).mean()
        wrong = [f"{100 * mean(records, key):.0f}" if noise else "" for key in ("memorized", "recovered")]
        cells = (name, len(records), percent(records), *differences.get(name, ("", "")))
        cells += tuple(f"{100 * mean(records, key):.1f}" for key in ("mean_recall", "accuracy_by_fer2013"))
        cells += (f"{100 * five:.1f}", f"+{100 * best:.1f}", *wrong)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, ""]


if __name__ == "__main__":
    sys.exit(main())
