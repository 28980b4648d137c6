"""The log of all readings of private_test by experiments of this repository, `results/private_test_reads.csv`."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterable

from fer_jax.parsing import read_json

LOG = pathlib.Path("results", "private_test_reads.csv")
HEAD = ["date", "commit", "model", "accuracy", "mean_recall"]
FIELDS = {"scored_on": str, "git_commit": str, "accuracy": float, "mean_recall": float, "seed": int}

RECORDS = {
    "results/equal_terms/*/runs/*.json": "equal_terms.py:{folder} {method} seed {seed}",
    "results/claims/pdls/*.json": "claims/pdls.py {arm} seed {seed}",
}


def short(commit: str) -> str:
    """Returns the first seven digits of a commit, with its '+' where files had changed."""
    return commit[:7] + "+" * commit.endswith("+")


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
    """Returns the rows that the records of equal_terms and of the claim of PDLS stand for and that the log lacks."""
    rows = []
    for pattern, name in RECORDS.items():
        for path in sorted(root.glob(pattern)):
            record = read_json(path, "move it away to train this run again", FIELDS)
            model = name.format(folder=path.parents[1].name, **record)
            scores = (f"{record[score]:.4f}" for score in ("accuracy", "mean_recall"))
            rows.append([record["scored_on"], short(record["git_commit"]), model, *scores])
    logged = read(root)
    return [row for row in rows if row not in logged]
