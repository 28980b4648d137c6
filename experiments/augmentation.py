"""Compares augmentations on FER-2013, everything else being equal.

    python -m experiments.augmentation --data_dir=FOLDER

Every arm trains the compact network of fer2013_fast.py for 30 epochs with shifts and flips; every arm but `none` adds
one operation to them. The model after the last epoch is scored on public_test; nothing is selected, and private_test is
not read. Runs go seed by seed, so that an interrupted command leaves complete comparisons; the arms of ONCE, with one
seed each, come last.

Every run writes OUT/public_test/ARM_seedN.json, and a run whose file exists is not trained again; OUT.md has the table.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from experiments import fer2013_fast
from experiments.comparison import Run, chosen, facts, finish, packed, positive, table_of_arms
from fer_jax.config.fields import Config, assign, variant_config
from fer_jax.data.sources.source import load as read_source
from fer_jax.inference.trained import load
from fer_jax.training import loop

CONTROL = "none"
SPLIT = "public_test"
ALWAYS = ("shift:4", "flip:alternate")
COMPARED: dict[str, dict[str, Any]] = {
    CONTROL: {},
    "erasing": {"augmentation.train": (*ALWAYS, "erase:0.5")},
    "trivialaugment": {"augmentation.train": ("trivialaugment", *ALWAYS)},
    "randaugment_faces": {"augmentation.train": ("randaugment:2,magnitude=9,limits=faces", *ALWAYS)},
    "cutmix": {"objective": "cutmix"},
    "mixup": {"objective": "mixup"},
}
ONCE: dict[str, dict[str, Any]] = {
    "autoaugment_cifar10": {"augmentation.train": ("autoaugment:cifar10", *ALWAYS)},
    "autoaugment_imagenet": {"augmentation.train": ("autoaugment:imagenet", *ALWAYS)},
    "autoaugment_svhn": {"augmentation.train": ("autoaugment:svhn", *ALWAYS)},
    "augmix": {"augmentation.train": ("augmix", *ALWAYS)},
}
SCORES = ("accuracy", "mean_recall", "nll", "ece")


def recipe() -> Config:
    """Two CPU cores, a quarter of an hour and more for a run."""
    config = variant_config("augmentation", "compact", "cpu", {"cpu": fer2013_fast.cpu})
    config.data.validation_split = ""
    config.data.holdout_fraction = 0.0
    config.data.test_split = SPLIT
    config.selection.rule = "last"
    config.augmentation.train = ALWAYS
    config.train.epochs = 30.0
    config.evaluation.views = ""
    config.evaluation.flip = False
    config.evaluation.report = False
    config.evaluation.bootstrap = 0
    return config


def config_of(arm: str, seed: int) -> Config:
    """Returns the config of one run."""
    config = recipe()
    for field, value in (COMPARED | ONCE)[arm].items():
        assign(config, field, value)
    config.seed = seed
    return config


def run(arm: str, config: Config, workdir: epath.Path, data_dir: str) -> dict[str, Any]:
    """Trains one run, or resumes it, and returns its record."""
    config.data.data_dir = data_dir
    results = loop.train(config, workdir)
    model = load(os.fspath(workdir))
    test = read_source(model.config.data, SPLIT, training=False)
    right = model.logits(test).argmax(axis=1) == test.arrays["label"]
    scores = {name: results[name] for name in SCORES}
    record = {"arm": arm, "seed": config.seed, "right": packed(right), "examples": len(test)}
    return record | scores | facts(config, results)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default="results/augmentation")
    parser.add_argument("--arms", default=",".join(COMPARED | ONCE), help="(default: all) %(default)s")
    parser.add_argument("--seeds", type=positive, default=3, help="number of seeds of each arm that is not in ONCE")
    parser.add_argument("--data_dir", default="", help="folder of the prepared data")
    parser.add_argument("--workdir", type=epath.Path, default="runs/augmentation", help="folder of the runs")
    given = parser.parse_args(arguments)
    return finish(_runs(given), given.out, table)


def _runs(given: argparse.Namespace) -> Iterator[Run]:
    arms = chosen(given.arms, COMPARED | ONCE)
    compared = itertools.product(range(given.seeds), (arm for arm in arms if arm in COMPARED))
    for seed, arm in (*compared, *((0, arm) for arm in arms if arm in ONCE)):
        name, config = f"{arm}_seed{seed}", config_of(arm, seed)
        train = functools.partial(run, arm, config, given.workdir / name, given.data_dir)
        yield given.out / SPLIT / f"{name}.json", config, train


NOTES = """\
Scores on public_test after the last of 30 epochs. Differences are paired by picture, with a bootstrap over pictures and
seeds, p corrected for the number of arms (Holm); arms of one seed are compared with the same seed of `none`, by
themselves. Minutes are those of a whole run. Policies are applied to every picture, randaugment_faces at the
magnitude 9; half of the pictures (p=0.5) would be milder.
"""


def table(folder: pathlib.Path) -> str:
    """Returns a table of the records in a folder: each arm compared with `none`."""
    return f"{NOTES}\n{table_of_arms(folder / SPLIT, 'augmentation', CONTROL, COMPARED, ONCE)}"


if __name__ == "__main__":
    sys.exit(main())
