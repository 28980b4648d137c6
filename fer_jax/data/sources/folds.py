"""Folds of cross-validation: which examples are tested together.

Arrays count folds from 0; users see them counted from 1, as papers do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fer_jax.errors import UserError, nearest
from fer_jax.parsing import whole_number

WAYS = ("subject:10", "leave_one_subject_out", "stored", "examples:5")


class Division(NamedTuple):
    """A division: 'subject', 'leave_one_subject_out', 'stored' or 'examples'; `count` is 0 if not given."""

    way: str
    count: int = 0

    def describe(self) -> str:
        return {
            "subject": f"whole subjects, by their rank modulo {self.count}",
            "leave_one_subject_out": "one subject to a fold",
            "stored": "the data set's own folds",
            "examples": "single examples, whoever they show, each class evenly",
        }[self.way]


def parse_division(text: str) -> Division:
    """Parses `config.data.folds`: 'subject:K', 'leave_one_subject_out', 'stored' or 'examples:K'."""
    if text in WAYS[1:3]:
        return Division(text)
    way, _, count = text.partition(":")
    if way not in ("subject", "examples") or (number := whole_number(count)) is None:
        raise UserError(f"config.data.folds='{text}': {nearest(text, WAYS)}")
    if number < 2:
        raise UserError(f"config.data.folds='{text}': give at least 2 folds, for example '{way}:10'")
    return Division(way, number)


def divide(arrays: Mapping[str, np.ndarray], text: str, dataset: str) -> np.ndarray:
    """Returns the fold of each example of a stored split, int32 [N] from 0.

    Args:
        arrays: the whole split, before any example is left out: ranks of subjects must not depend on the config.
        text: `config.data.folds`.
        dataset: its name, for messages.

    Raises:
        UserError: if the data set lacks the field that this division needs, or has fewer subjects than folds.
    """
    division = parse_division(text)
    field = {"stored": "fold", "examples": "label"}.get(division.way, "subject")
    if field not in arrays:
        lacks = {"fold": "has no folds of its own", "label": "has votes only"}.get(field, "does not name its subjects")
        raise UserError(
            f"config.data.folds='{text}': {dataset} {lacks} (it has no field '{field}'); choose another division"
        )
    if division.way == "stored":
        return stored_folds(arrays["fold"])
    if division.way == "examples":
        return example_folds(arrays["label"], division.count)
    folds = subject_folds(arrays["subject"], division.count)
    if "fold" in arrays and arrays["fold"].max() + 1 == division.count and (arrays["fold"] != folds).any():
        raise UserError(
            f"config.data.folds='{text}': subjects are missing from this copy of {dataset}, so the ranks of the others "
            "give folds that differ from the published ones; set it to 'stored'"
        )
    return folds


def subject_folds(subject: np.ndarray, k: int = 0) -> np.ndarray:
    """Returns the rank of each example's subject modulo k, int32 [N]; each subject has its own fold if k is 0."""
    people, rank = np.unique(subject, return_inverse=True)
    if len(people) < max(k, 2):
        raise UserError(
            f"config.data.folds: there are {len(people)} subjects, but {max(k, 2)} are needed; use fewer folds, or "
            "'leave_one_subject_out'"
        )
    return (rank % (k or len(people))).astype(np.int32)


def example_folds(label: np.ndarray, k: int) -> np.ndarray:
    """Returns random folds with each class spread evenly, int32 [N]; for pictures of unknown people."""
    rng = np.random.default_rng(0)  # the same folds for every seed of training
    order = np.concatenate([rng.permutation(rows) for rows in rows_by_class(label)])
    if len(order) < k:
        raise UserError(f"config.data.folds='examples:{k}': there are {len(order)} examples; use fewer folds")
    folds = np.empty(len(order), np.int32)
    folds[order] = np.arange(len(order)) % k
    return folds


def rows_by_class(label: np.ndarray) -> list[np.ndarray]:
    """Returns the rows of each class that occurs, in order of classes."""
    order = np.argsort(label, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1)


def stored_folds(fold: np.ndarray) -> np.ndarray:
    """Returns the data set's own folds as int32 [N]; raises unless they are numbered 0, 1, 2 and so on."""
    numbers = np.unique(fold)
    if len(numbers) < 2 or not np.array_equal(numbers, np.arange(len(numbers))):
        shown = ", ".join(map(str, numbers[:12].tolist()))
        raise UserError(
            f"config.data.folds='stored': the data set's folds are numbered {shown or 'not at all'}, but must be "
            "0, 1, 2 and so on: build it again"
        )
    return fold.astype(np.int32)


def check_number(number: int, count: int) -> None:
    """Raises unless 1 <= number <= count."""
    if not 1 <= number <= count:
        raise UserError(f"config.fold={number}: there are {count} folds; choose 1 to {count}, or all")
