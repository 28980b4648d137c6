"""Lists the labels of FER-2013 that the methods of the noise benchmark jointly consider wrong, with FER+'s votes.

    python -m experiments.noise_labels --runs=runs/noise/real --data_dir=FOLDER --out=results/noise/doubted_labels.csv

The models are those that `experiments/noise.py` trained on FER-2013's own labels. They score the pictures of the
training split that none of them was trained on, where no label is memorized. The doubt about a label is the mean of
-log p(label) over methods and over the seeds of each.
"""

from __future__ import annotations

import argparse
import csv
import io
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from experiments.noise import config_of
from fer_jax.data.sources.source import Source
from fer_jax.data.sources.source import load as read_source
from fer_jax.data.targets.label_noise import fer2013_labels
from fer_jax.errors import UserError, print_any_text, writing
from fer_jax.evaluation.metrics import log_softmax
from fer_jax.inference.trained import load
from fer_jax.labels import FERPLUS_VOTES
from fer_jax.storage import write_whole
from fer_jax.training.examples import read_examples

COUNT = 100


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=pathlib.Path, default="runs/noise/real", help="folder of METHOD_seedN")
    parser.add_argument("--out", type=pathlib.Path, default="results/noise/doubted_labels.csv")
    parser.add_argument("--data_dir", default="", help="folder of the prepared data")
    given = parser.parse_args(arguments)
    print_any_text()
    try:
        source, labels = unseen(given.data_dir)
        doubt = doubts(given.runs, source, labels)
        with writing(given.out):
            given.out.parent.mkdir(parents=True, exist_ok=True)
            write_whole(given.out, as_csv(source, labels, doubt))
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    print(in_words(source, labels, doubt))
    return 0


def unseen(data_dir: str) -> tuple[Source, np.ndarray]:
    """Returns the pictures of the training split that no run trains on, and FER-2013's labels of them."""
    config = config_of("real", "cross-entropy", 0)
    config.data.data_dir = data_dir
    trained, _, _ = read_examples(config)
    every = read_source(config.data, config.data.train_split, training=True)
    rest = every.select(np.flatnonzero(~np.isin(every.rows, trained.rows)))
    return rest, fer2013_labels(rest)


def doubts(folder: pathlib.Path, source: Source, labels: np.ndarray) -> np.ndarray:
    """Returns the doubt [N] about each label: -log p(label), averaged over the seeds of a method, then over methods."""
    by_method: dict[str, list[np.ndarray]] = {}
    for run in sorted(folder.glob("*_seed*")):
        if (run / "results.json").exists():
            model = load(str(run))
            data, expected = model.config.data, config_of("real", "cross-entropy", 0).data
            if (data.examples, data.label_noise) != (expected.examples, expected.label_noise):
                raise UserError(f"{run} is not a run of the column `real` in its CPU form: give another --runs")
            log_p = log_softmax(model.logits(source))
            by_method.setdefault(run.name.partition("_seed")[0], []).append(-log_p[np.arange(len(labels)), labels])
    if not by_method:
        raise UserError(f"{folder} has no finished run: train them with python -m experiments.noise --columns=real")
    return np.mean([np.mean(seeds, axis=0) for seeds in by_method.values()], axis=0)


def most_doubted(doubt: np.ndarray) -> np.ndarray:
    """Returns the places of the most doubted labels, the most doubted one first."""
    return np.argsort(-doubt, kind="stable")[:COUNT]


def as_csv(source: Source, labels: np.ndarray, doubt: np.ndarray) -> str:
    """Returns the table: row in FER+'s training split as stored, FER-2013's label, FER+'s majority, doubt and votes."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("row", "fer2013", "ferplus", "doubt", *FERPLUS_VOTES))
    for n in most_doubted(doubt):
        names = (source.classes[labels[n]], source.classes[source.arrays["label"][n]])
        table.writerow((source.rows[n], *names, f"{doubt[n]:.2f}", *source.arrays["votes_label"][n]))
    return text.getvalue()


def in_words(source: Source, labels: np.ndarray, doubt: np.ndarray) -> str:
    """Returns how often FER+'s annotators agree that a doubted label is wrong, beside all labels."""
    votes = source.arrays["vote_target"][np.arange(len(labels)), labels]
    rows, wrong = most_doubted(doubt), labels != source.arrays["label"]
    return (
        f"{wrong[rows].sum()} of the {COUNT} most doubted labels are not FER+'s majority ({wrong.mean():.0%} of all "
        f"{len(labels):,}); for {int((votes[rows] == 0).sum())} nobody voted ({(votes == 0).mean():.0%} of all)"
    )


if __name__ == "__main__":
    sys.exit(main())
