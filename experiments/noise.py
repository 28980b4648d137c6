"""Compares methods for ambiguous labels on FER+'s pictures, whose true labels are known, with wrong training labels.

    python -m experiments.noise --out results/noise/cpu --columns=clean,symmetric30,real --data_dir=FOLDER

FER-2013's own labels agree with the majority of FER+'s ten annotators on two thirds of the pictures. The column `real`
trains on them, `symmetric10` to `symmetric30` on FER+ labels changed at random, and `matrix` on labels drawn with the
frequency of each FER-2013 class given the FER+ class (class-dependent, but independent of the picture). All are tested
on FER+'s majority. Every method trains the same network for the same number of epochs, and the model after the last
epoch is scored: nothing is selected. Accuracy after every epoch is measured on public_test; it gives the mean of the
last five epochs, and the gain of choosing the best epoch on the test pictures. private_test is scored only after the
last epoch.

A comparison is meaningful only where cross-entropy memorizes: `memorized` is the fraction of wrongly labeled training
pictures for which the final model repeats the wrong label. The columns `synthetic` and `synthetic30` are synthetic
faces with true labels and with 30 % changed at random, tested on their test split. `--methods` also takes ablations,
each without a component that its paper considers essential.

Every run writes OUT/COLUMN/METHOD_seedN.json; a run whose file exists is not trained again. OUT.md has the tables, and
OUT.png shows what the trained models reveal about the wrong labels (`experiments/noise_knowledge.py`).
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from experiments import presets
from experiments.comparison import Run, against, chosen, facts, finish, mean, packed, percent, positive, read_records
from experiments.noise_knowledge import OWN, certainty, claims_table, coverage, draw, knowledge, knowledge_table, known
from fer_jax.config.fields import Config, assign, variant_config
from fer_jax.data.sources.source import load as read_source
from fer_jax.data.targets.label_noise import fer2013_labels
from fer_jax.inference.trained import load
from fer_jax.parsing import read_lines
from fer_jax.storage import write_whole
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
    "synthetic": {},
    "synthetic30": {"data.label_noise": "symmetric", "data.label_noise_rate": 0.3},
}
REAL_RATE = 0.32  # of FER-2013's labels
METHODS: dict[str, dict[str, Any]] = {
    CONTROL: {},
    "correction": {"objective": "correction"},
    "scn": {"objective": "scn", "strategy.scn.delta1": 0.07},
    "rul": {"method": "rul", "objective": "relabel", "model.keep_sigma": True},
    "eac": {"objective": "eac", "strategy.eac.pair_mode": "independent", "strategy.eac.weight": 2.0},
    "nla": {"objective": "nla"},
    "small_loss": {"objective": "small_loss"},
    "smoothing": {"data.label_smoothing": 0.1},
}
VAC = {"objective": "vac", "strategy.vac.scale": 5 / 6}
# Variants without a part that the papers say matters, and what each is compared with; run where --methods names them.
ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "rul_equal": ("rul", METHODS["rul"] | {"model.mixing": "equal"}),
    "rul_weights": ("rul", METHODS["rul"] | {"loss.options.shares": "weights"}),
    "eac_balanced": ("eac", METHODS["eac"] | {"strategy.eac.balanced": True}),
    "eac_unerased": ("eac", METHODS["eac"]),
    "random": ("small_loss", {"objective": "dropping", "strategy.dropping.rule": "random"}),
    "vac": (CONTROL, VAC),
    "vac_views": ("vac", VAC | {"strategy.vac.flip_weight": 0.0, "strategy.vac.scale_weight": 0.0}),
}

# What the sources say to choose anew for other networks and data; the values are scored on public_test (--probe).
PROBES: dict[str, tuple[str, tuple[float, ...]]] = {
    "scn": ("strategy.scn.start", (10.0, 25.0, 40.0)),
    "rul": ("strategy.relabel.start", (10.0, 25.0, 40.0)),
    "eac": ("strategy.eac.weight", (5.0, 2.0, 1.0)),
}


def recipe(method: str = "baseline", full: bool = False) -> Config:
    """Two CPU cores: 6,000 pictures of 48 pixels, a ResNet-18 of width 24, 50 epochs; `full` is for an accelerator.

    The last map has 2x2 places, which is little for the attention that EAC compares; in full it has 6x6.
    """
    config = variant_config("noise", method, "ferplus" if full else "ferplus_short", presets.VARIANTS)
    config.data.target = "majority"
    config.data.drop_classes = ("contempt",)
    config.data.validation_split = "public_test"
    config.selection.rule = "last"
    if not full:
        config.data.examples = 6000
        config.augmentation.train = ("shift:2", "flip", "erase:0.5")
        config.model.width = 24
        config.train.epochs = 50.0
    config.train.ema_decay = 0.0  # what is memorized last counts
    config.train.eval_every_epochs = 1.0
    config.evaluation.flip = False
    config.evaluation.report = False
    config.evaluation.bootstrap = 0
    return config


def synthetic_recipe(method: str = "baseline") -> Config:
    """The same for 3,000 synthetic faces in 40 epochs; with 6,000 faces cross-entropy memorizes almost nothing."""
    config = variant_config("noise", method, "synthetic", presets.VARIANTS)
    same = recipe(method)
    config.selection.rule = "last"
    config.data.examples = 3000
    config.augmentation.train = ("crop:59", "flip", "erase:0.5")
    config.model.width = same.model.width
    config.train.epochs = 40.0
    config.train.eval_every_epochs = 1.0
    config.evaluation = same.evaluation
    return config


def config_of(column: str, method: str, seed: int, full: bool = False) -> Config:
    """Returns the config of one run; the noise is the same for every method and seed."""
    fields = dict(METHODS[method] if method in METHODS else ABLATIONS[method][1])
    name = fields.pop("method", "baseline")
    config = synthetic_recipe(name) if column.startswith("synthetic") else recipe(name, full)
    for field, value in (COLUMNS[column] | fields).items():
        assign(config, field, value)
    config.seed = seed
    rate = config.data.label_noise_rate or (REAL_RATE if config.data.label_noise else 0.0)
    objective = config.objective
    if objective == "small_loss":  # it is told the share of wrong labels
        config.strategy.small_loss.tau = rate
    if objective == "dropping":
        config.strategy.dropping.update(share=rate, start=1.0)
    if objective in ("scn", "relabel"):  # by the probes; labels are replaced by what has been learned until then
        config.strategy[objective].start = 0.8 * config.train.epochs
    if objective == "correction" and column not in ("real", "matrix"):
        config.strategy.correction.matrix = "estimated"
        config.strategy.correction.anchors = 10  # the rarest class has 25 pictures
    if objective == "nla":  # as fast, in shares of the run, as in the authors' 60 epochs
        config.strategy.nla.epochs = config.train.epochs / 15
    if method == "eac_unerased":
        config.augmentation.train = tuple(op for op in config.augmentation.train if not op.startswith("erase"))
    return config


def run(column: str, method: str, config: Config, workdir: epath.Path, data_dir: str) -> dict[str, Any]:
    """Trains one run, or resumes it, and returns its record."""
    config.data.data_dir = data_dir
    results = loop.train(config, workdir)
    model = load(os.fspath(workdir))
    train, _, noise = read_examples(model.config)
    test = read_source(model.config.data, model.config.data.test_split, training=False)
    log = read_lines(workdir / "metrics.jsonl")
    outputs = model.outputs(test, (OWN,))
    answers = outputs["logits"].argmax(axis=1)
    right = answers == test.arrays["label"]
    record = {
        "column": column,
        "method": method,
        "seed": config.seed,
        "accuracy": results["accuracy"],
        "mean_recall": results["mean_recall"],
        "recall": dict(zip(test.classes, results["recall"], strict=True)),
        "right": packed(right),
        "examples": len(test),
        "curve": [line["accuracy"] for line in log if line["kind"] == "validation"],
        "noise": noise,
        "coverage": {name: coverage(right, sign) for name, sign in certainty(outputs).items()},
    }
    if noise:
        record |= {"model": results["label_noise"]["model"], **knowledge(model, train, log)}
    if "fer2013_label" in test.arrays:
        record["accuracy_by_fer2013"] = float((answers == fer2013_labels(test)).mean())
    return record | facts(config, results)


def probe(method: str, value: float, workdir: epath.Path, data_dir: str) -> dict[str, Any]:
    """Trains a method with one value of its field of `PROBES` and returns the scores on public_test alone."""
    config = probe_config(method, value)
    config.data.data_dir = data_dir
    results = loop.train(config, workdir)
    scores = {name: results[name] for name in ("accuracy", "mean_recall")}
    return {"method": method, "value": value} | scores | facts(config, results)


def probe_config(method: str, value: float) -> Config:
    """Returns the config of a probe: 30 % symmetric noise, seed 0; private_test is not read."""
    config = config_of("symmetric30", method, seed=0)
    assign(config, PROBES[method][0], value)
    config.data.validation_split, config.data.test_split = "", "public_test"  # a tenth of the pictures is held out
    return config


def probe_table(folder: pathlib.Path) -> str:
    """Returns the probes as a Markdown table."""
    lines = ["| method | field | value | accuracy, % | mean recall, % |", "|---|---|---|---|---|"]
    for method, (field, values) in PROBES.items():
        found = {record["value"]: record for record in read_records(folder / method, "method").get(method, [])}
        for record in (found[value] for value in values if value in found):
            scores = " | ".join(f"{100 * record[name]:.1f}" for name in ("accuracy", "mean_recall"))
            lines.append(f"| {method} | `{field}` | {record['value']:g} | {scores} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default="results/noise/cpu")
    parser.add_argument("--columns", default="clean,symmetric30,real", help=f"among {','.join(COLUMNS)}")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"or {','.join(ABLATIONS)} (default: %(default)s)")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--data_dir", default="", help="folder of the prepared data")
    parser.add_argument("--workdir", type=epath.Path, default="runs/noise", help="folder of the runs")
    parser.add_argument("--full", action="store_true", help="all pictures and the whole network, for an accelerator")
    parser.add_argument("--probe", action="store_true", help="score the values of PROBES on public_test instead")
    given = parser.parse_args(arguments)
    if given.probe:
        return finish(_probes(given), given.out, probe_table)
    status = finish(_runs(given), given.out, table)
    if status == 0:
        write_whole(given.out.with_suffix(".png"), draw(_records(given.out)))
    return status


def _probes(given: argparse.Namespace) -> Iterator[Run]:
    for method, (_, values) in PROBES.items():
        for value in values:
            place = pathlib.Path(method) / f"{value:g}"
            train = functools.partial(probe, method, value, given.workdir / place, given.data_dir)
            yield given.out / place.with_suffix(".json"), probe_config(method, value), train


def _runs(given: argparse.Namespace) -> Iterator[Run]:
    """Yields the runs seed by seed and column by column, so that an interrupted command leaves whole comparisons."""
    columns, methods = chosen(given.columns, COLUMNS), chosen(given.methods, METHODS | ABLATIONS)
    ordered = [CONTROL, *(name for name in methods if name != CONTROL)]
    for seed, column, method in itertools.product(range(given.seeds), columns, ordered):
        place = pathlib.Path(column) / f"{method}_seed{seed}"
        config = config_of(column, method, seed, given.full)
        train = functools.partial(run, column, method, config, given.workdir / place, given.data_dir)
        yield given.out / place.with_suffix(".json"), config, train


NOTES = """\
`truth` is FER+'s majority on private_test after the last epoch, bold where p is below .05; `FER-2013` the same answers
against FER-2013's own labels. The mean of the last five epochs, and what the best epoch would add to the last, are
measured on public_test. The synthetic columns are tested on their test split, and have a tenth of the training pictures
in place of public_test. Differences are to cross-entropy, paired by picture, with a bootstrap over pictures and seeds,
p corrected for the number of methods (Holm); 2,000 draws show no p below a thousandth of that number. `correction` is
given T in `real` and `matrix` and estimates it elsewhere; `small_loss` is told the share of wrong labels. Some of what
counts as wrong in `real` is another way of labeling (neutral faces called sad, afraid or angry), not chance.
"""


def table(folder: pathlib.Path) -> str:
    """Returns the tables of each column from the records in a folder: methods against the control, and wrong labels."""
    columns, with_ablations = _records(folder), _records(folder, (*METHODS, *ABLATIONS))
    lines = [NOTES, *_summary(columns)]
    for column, runs in columns.items():
        lines += [*_column(column, runs), *knowledge_table(runs)]
    lines += [*_ablations(with_ablations), *claims_table(with_ablations)]
    return "\n".join(lines) + "\n"


def _summary(columns: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> list[str]:
    """Returns a table of the accuracies, methods by columns; bold if the difference from the control has p < .05."""
    bold = {c: {m for m, (_, p) in _differences(runs).items() if float(p) < 0.05} for c, runs in columns.items()}
    lines = [f"| truth, % | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for method in METHODS:
        cells = [percent(runs[method]) if method in runs else "" for runs in columns.values()]
        marked = [f"**{cell}**" if method in bold[c] else cell for c, cell in zip(columns, cells, strict=True)]
        lines += [f"| {method} | {' | '.join(marked)} |"] if any(cells) else []
    return [*lines, ""]


def _remembered(runs: Mapping[str, list[dict[str, Any]]]) -> float:
    """Returns the fraction of wrong labels that the control memorizes; 1 if all labels are right."""
    control = runs[CONTROL]
    return mean(known(control), "memorized") if control[0]["noise"] else 1.0


def _differences(runs: Mapping[str, list[dict[str, Any]]]) -> dict[str, tuple[str, str]]:
    """Returns the differences from the control; none if the control memorizes too little for a fair comparison."""
    if _remembered(runs) < MEMORIZED:
        return {}
    return against(runs[CONTROL], {name: records for name, records in runs.items() if name != CONTROL})


def _records(folder: pathlib.Path, methods: Iterable[str] = METHODS) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Returns the records of the seeds by column and method, for columns that include the control."""
    found = {column: read_records(folder / column, "method") for column in COLUMNS}
    return {c: {m: runs[m] for m in methods if m in runs} for c, runs in found.items() if CONTROL in runs}


def _column(column: str, runs: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    control = runs[CONTROL][0]
    noise = control["noise"]
    share = f"; {noise['changed_share']:.1%} of the training labels are wrong" if noise else ""
    lines = [f"**{column}**, {control['examples']:,} test pictures{share}", ""]
    if (remembered := _remembered(runs)) < MEMORIZED:
        lines += [f"Not tested: cross-entropy repeats only {remembered:.0%} of the wrong labels.", ""]
    lines += [
        "| method | seeds | truth, % | to cross-entropy, points | p | mean recall, % | FER-2013, % | "
        "last five epochs, % | best epoch adds | memorized, % | recovered, % |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    differences = _differences(runs)
    for name, records in runs.items():
        curves = np.array([record["curve"] for record in records])
        five, best = curves[:, -5:].mean(), (curves.max(axis=1) - curves[:, -1]).mean()
        wrong = [f"{100 * mean(known(records), key):.0f}" if noise else "" for key in ("memorized", "recovered")]
        cells = (name, len(records), percent(records), *differences.get(name, ("", "")))
        cells += (f"{100 * mean(records, 'mean_recall'):.1f}", _by_fer2013(records))
        cells += (f"{100 * five:.1f}", f"+{100 * best:.1f}", *wrong)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, ""]


def _ablations(columns: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> list[str]:
    """Returns a table of the ablations that were run, each compared with its reference on the same seeds."""
    lines = [
        "**Ablations**",
        "",
        "| column | ablation | seeds | truth, % | compared with | difference, points | p |",
        "|---|---|---|---|---|---|---|",
    ]
    for column, runs in columns.items():
        for name in (name for name in ABLATIONS if name in runs):
            whole, seeds = ABLATIONS[name][0], [record["seed"] for record in runs[name]]
            same = [record for record in runs.get(whole, []) if record["seed"] in seeds]
            difference = against(same, {name: runs[name]})[name] if len(same) == len(seeds) else ("", "")
            cells = (column, name, len(seeds), percent(runs[name]), whole, *difference)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, ""] if len(lines) > 4 else []


def _by_fer2013(records: Sequence[Mapping[str, Any]]) -> str:
    return f"{100 * mean(records, 'accuracy_by_fer2013'):.1f}" if "accuracy_by_fer2013" in records[0] else ""


if __name__ == "__main__":
    sys.exit(main())
