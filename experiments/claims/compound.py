"""Compares networks with a linear classifier on the true action units.

    python -m experiments.claims.compound        # about 16 minutes on two CPU cores, 5 of them with --arms=compact

Trains networks on synthetic faces: a ResNet by the common recipe on the basic expressions and neutral, from whose
probabilities the 22 categories of Du et al. are read as well (pairs_of_basic); on these 22 with a softmax; on these
with six sigmoids and the table of pairs; and the compact network, which learns fastest, with a softmax on twice as many
faces. Beside their mean class accuracy on the test split stands that of a linear classifier, maximum entropy, on the
true action units of the same training faces.

Every network leaves OUT/ARM.json, and one that has its file is not trained again; OUT.md has the table.
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from experiments import baseline, compound, fer2013_fast, presets
from experiments.claims.ldl import FLOOR, maximum_entropy
from experiments.comparison import Run, chosen, facts, finish, read_records
from fer_jax.config.fields import Config, variant_config
from fer_jax.data.sources.source import Source
from fer_jax.data.sources.source import load as load_split
from fer_jax.evaluation.metrics import classification_metrics
from fer_jax.inference.pairs import match_pairs
from fer_jax.inference.trained import load
from fer_jax.training import loop


def fast(config: Config) -> None:
    """The recipe of fer2013_fast for synthetic faces: more of them than an epoch of the common recipe has."""
    fer2013_fast.cpu(config)
    config.data = variant_config("", "compact", "compound", presets.COMPOUND).data
    config.data.builder.train = 17600
    config.data.holdout_fraction = 0.05
    config.data.resolutions = ((0.4, 32),)
    config.augmentation.train = ("crop:59", "flip:alternate")
    config.train.epochs = 13.0
    config.train.eval_every_epochs = 3.0
    config.evaluation.views = ""
    config.evaluation.flip = True
    config.selection.metric = "mean_recall"


PAIRS = "pairs_of_basic"
ARMS = {
    "basic": lambda: baseline.get_config("synthetic"),
    PAIRS: lambda: baseline.get_config("synthetic"),  # the same network
    "softmax": lambda: baseline.get_config("compound"),
    "six_sigmoids": lambda: compound.get_config("compound"),
    "compact": lambda: variant_config("compound", "compact", "fast", {"fast": fast}),
}
PENALTY = 1e-4  # of the classifier on action units


def run(arm: str, config: Config, workdir: epath.Path) -> dict[str, Any]:
    """Trains one network, or resumes it, and returns its record."""
    place = workdir / ("basic" if arm == PAIRS else arm)
    results = loop.train(config, place)
    model = load(os.fspath(place))
    data = ARMS["softmax"]().data if arm == PAIRS else model.config.data
    train, test = (load_split(data, split, training=False) for split in ("train", "test"))
    outputs = model.outputs(test)
    if arm == PAIRS:
        outputs = match_pairs(test, model, train).of_outputs(outputs)
    record = {"arm": arm, "faces": f"{train.name}, {len(train):,}", "action_units": of_units(train, test)}
    return record | scores(outputs["logits"], test.arrays["label"], test.classes) | facts(config, results)


def of_units(train: Source, test: Source) -> float:
    """Returns the mean class accuracy of a linear classifier on the true action units."""
    target = np.eye(len(train.classes))[train.arrays["label"]]
    units, seen = (source.arrays["action_units"].astype(np.float64) for source in (train, test))
    p = np.maximum(maximum_entropy(units, target, seen, PENALTY), FLOOR)
    return scores(np.log(p), test.arrays["label"], test.classes)["mean_recall"]


def scores(logits: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"], classes: Sequence[str]) -> dict[str, float]:
    """Returns the mean class accuracy and, of compound classes, the share of examples with all parts right."""
    all_scores = classification_metrics(logits, labels, classes, bootstrap=0)
    parts = {"all_parts_right": all_scores["parts"]["all_right"]} if "parts" in all_scores else {}
    return {"mean_recall": all_scores["mean_recall"], **parts}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join(ARMS), help="(default: all) %(default)s")
    parser.add_argument("--workdir", type=epath.Path, default="runs/claims/compound", help="folder of the runs")
    parser.add_argument("--out", type=pathlib.Path, default="results/claims/compound")
    given = parser.parse_args(arguments)
    return finish(_runs(given), given.out, table)


def _runs(given: argparse.Namespace) -> Iterator[Run]:
    for arm in chosen(given.arms, ARMS):
        config = ARMS[arm]()
        config.evaluation.report = False
        yield given.out / f"{arm}.json", config, functools.partial(run, arm, config, given.workdir)


def table(folder: pathlib.Path) -> str:
    """Returns a table of the records in a folder."""
    runs = read_records(folder, "arm")
    lines = [
        "| network | training faces | mean recall, % | of action units, % | ratio | all parts right, % | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, (record, *_) in ((arm, runs[arm]) for arm in ARMS if arm in runs):
        recall, units, parts = record["mean_recall"], record["action_units"], record.get("all_parts_right")
        cells = [arm, record["faces"], f"{100 * recall:.1f}", f"{100 * units:.1f}", f"{recall / units:.2f}"]
        cells += ["" if parts is None else f"{100 * parts:.1f}", f"{record['minutes']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
