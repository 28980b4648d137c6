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

# Rows of fer2013.csv that the label.csv files leave out: those without a name (every annotator said "not a
# face") and one of each of the four pairs that share a name. Only needed if fer2013new.csv is missing.
# fmt: off
LEFT_OUT = (
    17, 23, 59, 170, 501, 633, 639, 1303, 1648, 2059, 2171, 2658, 2671, 2809, 3177, 3185, 3262, 3336,
    3385, 3403, 3549, 3931, 4069, 4275, 4327, 4521, 5051, 5082, 5274, 5348, 5439, 5478, 5509, 5722,
    5881, 5935, 6102, 6202, 6369, 6458, 6478, 6541, 6646, 6699, 6708, 7015, 7172, 7496, 7527, 7629,
    7965, 8030, 8567, 8627, 8737, 8856, 9026, 9121, 9256, 9264, 9474, 9500, 9673, 9679, 9693, 9797,
    10023, 10423, 10713, 10792, 10930, 11031, 11244, 11286, 11295, 11626, 11846, 12289, 12352, 12465,
    12840, 13011, 13148, 13402, 13697, 13988, 14148, 14279, 14702, 15013, 15144, 15553, 15668, 15835,
    15838, 15894, 15966, 15975, 16024, 16180, 16540, 16622, 16885, 17081, 17251, 17620, 17947, 18012,
    18337, 18492, 18625, 18912, 19238, 19422, 19632, 19638, 19997, 20222, 20712, 20817, 21320, 21792,
    21817, 21937, 22063, 22198, 22314, 22407, 22550, 22638, 22813, 22927, 23047, 23320, 23561, 23596,
    23894, 24053, 24191, 24441, 24593, 24891, 24971, 25168, 25219, 25603, 25909, 26383, 26860, 26897,
    28601, 29447, 29557, 30002, 30705, 30981, 31127, 31734, 31825, 32032, 32257, 32299, 32603, 32662,
    32683, 33195, 33422, 33750, 33928, 34334, 34691, 35121, 35469, 35632, 35743, 35825, 35883,
)
# fmt: on


@dataclass(frozen=True)
class Votes:
    """Votes of one file, by row of FER-2013's CSV.

    Attributes:
      counts: int64 `[N, 10]`, columns `FERPLUS_VOTES`; zeros if the file has no line for the row.
      present: bool `[N]`, whether it has one.
      names: the picture's name by row, '' without one; empty if the file was joined without names.
      lines: the number of lines read.
    """

    counts: np.ndarray
    present: np.ndarray
    names: Sequence[str]
    lines: int


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
    return Votes(np.array(counts, np.int64), np.ones(len(split), bool), names, len(counts))


def read_labels(
    paths: Sequence[epath.Path], split: np.ndarray, names: Sequence[str] | None, allow_counts: bool
) -> Votes:
    """Reads the three `label.csv` and finds the row of FER-2013's CSV that every line belongs to.

    Args:
      paths: of the files, in the order of the splits.
      split: `[N]` split of every row of FER-2013's CSV.
      names: picture names by row from `fer2013new.csv`; None joins by the rows that are known to be left out.
      allow_counts: accept other numbers of lines than published (needs `names`).

    Raises:
      UserError: for a wrong number of lines, name, order or vote.
    """
    counts = np.zeros((len(split), len(FERPLUS_VOTES)), np.int64)
    present = np.zeros(len(split), bool)
    total = 0
    for code, path in enumerate(paths):
        named, lines, votes = _read_label(path)
        if len(named) != LABEL_COUNTS[code] and not allow_counts:
            raise UserError(
                f"{path} has {len(named):,} rows, not {LABEL_COUNTS[code]:,} ({SPLITS[code]}): {WHERE}, or "
                "accept it with --allow_counts"
            )
        rows = np.flatnonzero(split == code)
        if names is None:
            rows = _rows_by_position(rows, named, path)
        else:
            rows = _rows_by_name(rows, names, named, lines, path)
        if len(rows):
            counts[rows], present[rows] = votes, True
        total += len(named)
    return Votes(counts, present, [], total)


def _read_label(path: epath.Path) -> tuple[list[str], list[int], list[list[int]]]:
    names, lines, votes = [], [], []
    for line, record in _records(path):
        where = f"{path}, line {line}"
        if len(record) != 2 + len(FERPLUS_VOTES):
            raise UserError(f"{where}: {len(record)} fields instead of {2 + len(FERPLUS_VOTES)}: {WHERE}")
        names.append(record[0].strip())
        lines.append(line)
        votes.append(_votes(record[2:], where))
        if not _NAME.fullmatch(names[-1]):
            raise UserError(f"{where}: {names[-1][:20]!r} is not a name like fer0000000.png: {WHERE}")
    _check_order(names, lines, path)
    return names, lines, votes


def _rows_by_name(
    rows: np.ndarray, names: Sequence[str], named: Sequence[str], lines: Sequence[int], path: epath.Path
) -> np.ndarray:
    """Finds `named` as a subsequence of the rows' names, because four names occur twice."""
    found, position = [], 0
    for name, line in zip(named, lines, strict=True):
        start = position
        while position < len(rows) and names[rows[position]] != name:
            position += 1
        if position == len(rows):
            known = any(names[row] == name for row in rows[:start])
            raise UserError(
                f"{path}, line {line}: {name} "
                + ("is out of order" if known else f"is not a picture of this split in {NEW_CSV}")
                + f": {WHERE}"
            )
        found.append(rows[position])
        position += 1
    return np.array(found, np.int64)


def _rows_by_position(rows: np.ndarray, named: Sequence[str], path: epath.Path) -> np.ndarray:
    rows = rows[~np.isin(rows, LEFT_OUT)]
    if len(rows) != len(named):
        raise UserError(
            f"{path} has {len(named):,} rows where {len(rows):,} are needed to join it with fer2013.csv: put "
            f"{NEW_CSV}, which names every row, beside it; {WHERE}"
        )
    return rows


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
