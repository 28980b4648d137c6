"""Ablation of experiments/fer2013_best.py: trains it without each of its ingredients in turn.

    python -m experiments.ablation --data_dir=FOLDER

Two seeds each, a quarter of the recipe's epochs, scored on public_test after the last epoch, without test-time views:
nothing is selected, and private_test is not read. Every run writes OUT/public_test/ARM_seedN.json, and a run whose file
exists is not trained again; OUT.md has the table.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from experiments import fer2013_best
from experiments.augmentation import run
from experiments.comparison import Run, against, chosen, finish, mean, percent, positive, read_records
from fer_jax.config.fields import Config, assign

CONTROL = "recipe"
SPLIT = "public_test"
SHARE = 0.25  # of the recipe's epochs
COUNT = 5  # ingredients


def recipe() -> Config:
    """Returns the recipe with a quarter of its epochs."""
    config = fer2013_best.get_config("cpu")
    config.data.validation_split = ""
    config.data.holdout_fraction = 0.0
    config.data.test_split = SPLIT
    config.selection.rule = "last"
    config.train.epochs *= SHARE
    config.train.eval_every_epochs = config.train.epochs
    config.evaluation.views = ""
    config.evaluation.report = False
    config.evaluation.bootstrap = 0
    return config


def arms() -> dict[str, dict[str, Any]]:
    """Returns the recipe, and variants that each leave out one of its first `COUNT` ingredients."""
    config = recipe()

    def without(*operations: str) -> tuple[str, ...]:
        return tuple(text for text in config.augmentation.train if text.partition(":")[0] not in operations)

    sgd = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.2, "optimizer.momentum": 0.9}
    sgd |= {"optimizer.weight_decay": 5e-4, "optimizer.decoupled": False}
    left_out: dict[str, dict[str, Any]] = {
        f"no {config.objective}": {"objective": ""},
        "full size from the first step on": {"data.resolutions": ()},
        "SGD in place of Muon": sgd,
        "no erasing": {"augmentation.train": without("erase", "erase_pixels")},
        "no dropout": {"model.dropout": 0.0},
        "no moving average": {"train.ema_decay": 0.0},
        "no rotation": {"augmentation.train": without("rotate")},
        "no class weights": {"data.class_weights": False},
        "no label smoothing": {"data.label_smoothing": 0.0},
    }
    own = dict(config.to_dict())
    there = {arm: fields for arm, fields in left_out.items() if any(_at(own, f) != v for f, v in fields.items())}
    return {CONTROL: {}} | dict(itertools.islice(there.items(), COUNT))


def _at(values: dict[str, Any], path: str) -> Any:
    """Returns the value at a dotted path."""
    return functools.reduce(lambda group, name: group[name], path.split("."), values)


def config_of(arm: str, seed: int) -> Config:
    """Returns the config of one run."""
    config = recipe()
    for field, value in arms()[arm].items():
        assign(config, field, value)
    config.seed = seed
    return config


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default="results/fer2013_best_ablation")
    parser.add_argument("--arms", default=",".join(arms()), help="(default: all) %(default)s")
    parser.add_argument("--seeds", type=positive, default=2)
    parser.add_argument("--data_dir", default="", help="folder of the prepared data")
    parser.add_argument("--workdir", type=epath.Path, default="runs/ablation", help="folder of the runs")
    given = parser.parse_args(arguments)
    return finish(_runs(given), given.out, table)


def _runs(given: argparse.Namespace) -> Iterator[Run]:
    for seed, arm in itertools.product(range(given.seeds), chosen(given.arms, arms())):
        name, config = f"{arm.replace(' ', '_')}_seed{seed}", config_of(arm, seed)
        train = functools.partial(run, arm, config, given.workdir / name, given.data_dir)
        yield given.out / SPLIT / f"{name}.json", config, train


def table(folder: pathlib.Path) -> str:
    """Returns a table of the records in a folder: the recipe without each ingredient, compared with the recipe."""
    runs = read_records(folder / SPLIT, "arm")
    if CONTROL not in runs:
        return ""
    seeds = set.intersection(*({record["seed"] for record in records} for records in runs.values()))
    whole = {arm: [r for r in runs[arm] if r["seed"] in seeds] for arm in arms() if arm in runs}
    differences = against(whole[CONTROL], {arm: records for arm, records in whole.items() if arm != CONTROL})
    lines = [
        f"| {SHARE:.0%} of the epochs | seeds | accuracy, % | to the recipe, points | p | mean recall, % | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, records in ((arm, records) for arm, records in whole.items() if records):
        cells = [arm, str(len(records)), percent(records), *differences.get(arm, ("", ""))]
        cells += [f"{100 * mean(records, 'mean_recall'):.1f}", f"{mean(records, 'minutes'):.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
