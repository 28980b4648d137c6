"""Ablation of experiments/fer2013_best.py: trains it without each of its ingredients in turn, and with others.

    python -m experiments.ablation --data_dir=FOLDER

A quarter of the recipe's epochs, two seeds of each ingredient and one of each other change, scored on public_test after
the last epoch, without test-time views: nothing is selected, and private_test is not read. Every run writes
OUT/public_test/ARM_seedN.json, and a run whose file exists is not trained again; OUT.md has the table.
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
from experiments.comparison import Run, chosen, finish, positive, table_of_arms
from fer_jax.config.fields import Config, assign

CONTROL = "recipe"
SPLIT = "public_test"
SHARE = 0.25  # of the recipe's epochs
COUNT = 5  # ingredients
RANDAUGMENT = "randaugment:2,magnitude=9,limits=faces"


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


def ingredients() -> dict[str, dict[str, Any]]:
    """Returns variants that each leave out one of the recipe's first `COUNT` ingredients."""
    config = recipe()
    sgd = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.2, "optimizer.momentum": 0.9}
    sgd |= {"optimizer.weight_decay": 5e-4, "optimizer.decoupled": False}
    left_out: dict[str, dict[str, Any]] = {
        f"no {config.objective}": {"objective": ""},
        "full size from the first step on": {"data.resolutions": ()},
        "SGD in place of Muon": sgd,
        "no erasing": {"augmentation.train": _without("erase", "erase_pixels")},
        "no dropout": {"model.dropout": 0.0},
        "no moving average": {"train.ema_decay": 0.0},
        "no rotation": {"augmentation.train": _without("rotate")},
        "no class weights": {"data.class_weights": False},
        "no label smoothing": {"data.label_smoothing": 0.0},
    }
    return dict(itertools.islice(_that_differ(left_out).items(), COUNT))


def others() -> dict[str, dict[str, Any]]:
    """Returns variants that change the recipe in another way."""
    config = recipe()
    deeper = tuple(5 * width // 6 for width in config.model.widths)  # as much arithmetic
    return _that_differ(
        {
            "with RandAugment": {"augmentation.train": (RANDAUGMENT, *_without("randaugment"))},
            "CutMix in place of erasing": {"objective": "cutmix", "augmentation.train": _without("erase")},
            "RandAugment and CutMix in place of erasing": {
                "objective": "cutmix",
                "augmentation.train": (RANDAUGMENT, *_without("randaugment", "erase")),
            },
            "three convolutions per stage": {"model.convolutions": 3, "model.widths": deeper},
            "five times the weight decay": {"optimizer.weight_decay": 5 * config.optimizer.weight_decay},
        }
    )


def _without(*operations: str) -> tuple[str, ...]:
    """Returns the recipe's augmentation without some operations."""
    return tuple(text for text in recipe().augmentation.train if text.partition(":")[0] not in operations)


def _that_differ(variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the variants that change a value of the recipe."""
    own = dict(recipe().to_dict())
    return {arm: fields for arm, fields in variants.items() if any(_at(own, f) != v for f, v in fields.items())}


def _at(values: dict[str, Any], path: str) -> Any:
    """Returns the value at a dotted path."""
    return functools.reduce(lambda group, name: group[name], path.split("."), values)


def config_of(arm: str, seed: int) -> Config:
    """Returns the config of one run."""
    config = recipe()
    for field, value in ({CONTROL: {}} | ingredients() | others())[arm].items():
        assign(config, field, value)
    config.seed = seed
    return config


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default="results/fer2013_best_ablation")
    every = ",".join([CONTROL, *ingredients(), *others()])
    parser.add_argument("--arms", default=every, help="(default: all) %(default)s")
    parser.add_argument("--seeds", type=positive, default=2, help="number of seeds of the recipe and its ingredients")
    parser.add_argument("--data_dir", default="", help="folder of the prepared data")
    parser.add_argument("--workdir", type=epath.Path, default="runs/ablation", help="folder of the runs")
    given = parser.parse_args(arguments)
    return finish(_runs(given), given.out, table)


def _runs(given: argparse.Namespace) -> Iterator[Run]:
    arms = chosen(given.arms, [CONTROL, *ingredients(), *others()])
    compared = itertools.product(range(given.seeds), (arm for arm in arms if arm not in others()))
    for seed, arm in (*compared, *((0, arm) for arm in arms if arm in others())):
        name, config = f"{arm.replace(' ', '_')}_seed{seed}", config_of(arm, seed)
        train = functools.partial(run, arm, config, given.workdir / name, given.data_dir)
        yield given.out / SPLIT / f"{name}.json", config, train


def table(folder: pathlib.Path) -> str:
    """Returns a table of the records in a folder: each arm compared with the recipe."""
    return table_of_arms(folder / SPLIT, f"{SHARE:.0%} of the epochs", CONTROL, ingredients(), others())


if __name__ == "__main__":
    sys.exit(main())
