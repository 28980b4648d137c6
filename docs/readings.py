"""The log of all readings of private_test by experiments of this repository, `results/private_test_reads.csv`."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterable

from fer_jax.parsing import read_json

LOG = pathlib.Path("results", "private_test_reads.csv")
HEAD = ["date", "commit", "model", "accuracy", "mean_recall"]
FIELDS = {"scored_on": str, "git_commit": str, "accuracy": float, "mean_recall": float, "seed": int}


def read(root: pathlib.Path) -> list[list[str]]:
    """Returns the rows of the log, without its head; [] where there is none."""
    if not (root / LOG).exists():
        return []
    with (root / LOG).open(newline="") as log:
        return list(csv.reader(log))[1:]


def write(root: pathlib.Path, rows: Iterable[list[str]]) -> None:
    """Writes the log."""
    with (root / LOG).open("w", newline="") as log:
        csv.writer(log, lineterminator="\n").writerows([HEAD, *rows])


def missing(root: pathlib.Path) -> list[list[str]]:
    """Returns the rows that the records of `python -m experiments.equal_terms` stand for and that the log lacks."""
    rows = []
    for path in sorted(root.glob("results/equal_terms/*/runs/*.json")):
        record = read_json(path, "move it away to train this run again", FIELDS)
        name = f"equal_terms.py:{path.parents[1].name} {record['method']} seed {record['seed']}"
        scores = (f"{record[score]:.4f}" for score in ("accuracy", "mean_recall"))
        rows.append([record["scored_on"], record["git_commit"][:7], name, *scores])
    logged = read(root)
    return [row for row in rows if row not in logged]
