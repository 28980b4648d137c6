"""FER+'s two vote files, brought into the row order of FER-2013's CSV.

`fer2013new.csv` has one line for every row of `fer2013.csv`. The digits in its picture names look like row
numbers but drift by up to 85. `label.csv`, one per split, has most rows, in the same order.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from etils import epath

from fer_jax.errors import UserError
from fer_jax.labels import FERPLUS_VOTES
from fer_jax.parsing import read_text, table_rows, whole_number
from tfds_builders.fer2013.reading import SPLITS, USAGES

NEW_CSV = "fer2013new.csv"
LABEL_FOLDERS = ("FER2013Train", "FER2013Valid", "FER2013Test")  # in the order of SPLITS
LABEL_CSV = "label.csv"
LABEL_COUNTS = (28558, 3579, 3573)
WHERE = "get it from github.com/microsoft/FERPlus"

_HEADER = ("Usage", "Image name", *FERPLUS_VOTES)
_NAME = re.compile(r"fer([0-9]{7})\.png")
_MOST_VOTES = 10


@dataclass(frozen=True)
class Votes:
    """Votes of one file, by row of FER-2013's CSV.

    Attributes:
      counts: int64 `[N, 10]`, columns `FERPLUS_VOTES`; zeros if the file has no line for the row.
      present: bool `[N]`, whether it has one.
      names: the picture's name by row, '' without one; of `fer2013new.csv` only.
    """

    counts: np.ndarray
    present: np.ndarray
    names: Sequence[str]


def find_new(folder: epath.Path) -> epath.Path | None:
    """Returns `fer2013new.csv` under `folder`, its `FERPlus/` or its `fer2013/`, None without it."""
    places = [folder, folder / "FERPlus", folder / "fer2013"]
    return next((place / NEW_CSV for place in places if (place / NEW_CSV).exists()), None)


def find_labels(folder: epath.Path) -> tuple[epath.Path, ...] | None:
    """Returns the three `label.csv` under `folder`, `data/` or `FERPlus/data/`, None without any.

    Raises:
      UserError: if only some of the three exist.
    """
    for place in (folder, folder / "data", folder / "FERPlus" / "data", folder / "FERPlus"):
        paths = tuple(place / split / LABEL_CSV for split in LABEL_FOLDERS)
        missing = [path for path in paths if not path.exists()]
        if not missing:
            return paths
        if len(missing) < len(paths):
            raise UserError(f"{missing[0]} is missing beside the other splits' {LABEL_CSV}: {WHERE}")
    return None


def read_new(path: epath.Path, split: np.ndarray) -> Votes:
    """Reads `fer2013new.csv`.

    Args:
      path: of the file.
      split: `[N]` split of every row of FER-2013's CSV, which the file must match line by line.

    Raises:
      UserError: for a wrong header, number of lines, split, name, order or vote.
    """
    records = _records(path)
    line, header = next(records, (1, []))
    if tuple(field.strip() for field in header) != _HEADER:
        raise UserError(f"{path}, line {line}: the header is not '{','.join(_HEADER)}': {WHERE}")
    counts, names, lines = [], [], []
    for line, record in records:
        row = len(counts)
        where = f"{path}, line {line} (row {row})"
        if len(record) != len(_HEADER):
            raise UserError(f"{where}: {len(record)} fields instead of {len(_HEADER)}: {WHERE}")
        if row < len(split) and record[0].strip() != USAGES[split[row]]:
            raise UserError(
                f"{where}: Usage is {record[0][:20]!r} where fer2013.csv has {USAGES[split[row]]}: the "
                f"lines must have the order of fer2013.csv; {WHERE}"
            )
        names.append(record[1].strip())
        lines.append(line)
        counts.append(_votes(record[2:], where))
    if len(counts) != len(split):
        raise UserError(f"{path} has {len(counts):,} rows where fer2013.csv has {len(split):,}: {WHERE}")
    _check_order(names, lines, path)
    return Votes(np.array(counts, np.int64), np.ones(len(split), bool), names)


def read_labels(paths: Sequence[epath.Path], split: np.ndarray, names: Sequence[str], allow_counts: bool) -> Votes:
    """Reads the three `label.csv` and finds the row of FER-2013's CSV that every line belongs to.

    Args:
      paths: of the files, in the order of the splits.
      split: `[N]` split of every row of FER-2013's CSV.
      names: picture names by row from `fer2013new.csv`; four occur twice, so lines are joined in their order.
      allow_counts: accept other numbers of lines than published.

    Raises:
      UserError: for a wrong number of lines, name, order or vote.
    """
    counts = np.zeros((len(split), len(FERPLUS_VOTES)), np.int64)
    present = np.zeros(len(split), bool)
    for code, path in enumerate(paths):
        rows, number = iter(np.flatnonzero(split == code).tolist()), 0
        for line, record in _records(path):
            where, number = f"{path}, line {line}", number + 1
            if len(record) != 2 + len(FERPLUS_VOTES):
                raise UserError(f"{where}: {len(record)} fields instead of {2 + len(FERPLUS_VOTES)}: {WHERE}")
            row = next((row for row in rows if names[row] == record[0].strip()), None)
            if row is None:
                raise UserError(
                    f"{where}: {record[0][:20]!r} is no picture of this split in {NEW_CSV}, or out of order: {WHERE}"
                )
            counts[row], present[row] = _votes(record[2:], where), True
        if number != LABEL_COUNTS[code] and not allow_counts:
            raise UserError(
                f"{path} has {number:,} rows, not {LABEL_COUNTS[code]:,} ({SPLITS[code]}): {WHERE}, or "
                "accept it with --allow_counts"
            )
    return Votes(counts, present, [])


def _check_order(names: Sequence[str], lines: Sequence[int], path: epath.Path) -> None:
    """Raises unless the digits of the names increase down the file; names that occur twice are skipped."""
    often = collections.Counter(names)
    last = -1
    for name, line in zip(names, lines, strict=True):
        if not name or often[name] > 1:
            continue
        match = _NAME.fullmatch(name)
        if match is None:
            raise UserError(f"{path}, line {line}: {name[:20]!r} is not a name like fer0000000.png: {WHERE}")
        if int(match[1]) <= last:
            raise UserError(f"{path}, line {line}: {name} is out of order, the file was sorted or cut: {WHERE}")
        last = int(match[1])


def _votes(fields: Sequence[str], where: str) -> list[int]:
    votes = []
    for column, field in zip(FERPLUS_VOTES, fields, strict=True):
        if (count := whole_number(field.strip(), 0, _MOST_VOTES)) is None:
            raise UserError(
                f"{where}, column {column}: {field[:20]!r} is not a number of votes, 0 to {_MOST_VOTES}: {WHERE}"
            )
        votes.append(count)
    if sum(votes) not in (_MOST_VOTES - 1, _MOST_VOTES):  # one published row has nine
        raise UserError(f"{where}: {sum(votes)} votes in all, not {_MOST_VOTES}: {WHERE}")
    return votes


def _records(path: epath.Path) -> Iterator[tuple[int, list[str]]]:
    """Yields line number and fields of every line that is not blank."""
    text = read_text(path, WHERE)
    if not text.strip():
        raise UserError(f"{path} is empty: {WHERE}")
    yield from table_rows(text.splitlines(), path, WHERE)
