"""The votes of DFEW's ten annotators, from an .xlsx file: a ZIP archive of XML, which the standard library reads."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from fer_jax import labels
from fer_jax.parsing import LARGEST_INTEGER, Unreadable, number, read_sheet, whole_number
from tfds_builders.problems import Problems

SHEET, STRINGS = "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml"
MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
CODES = tuple(code for code in labels.CODES["dfew"] if code)  # 0 is no single label
COLUMNS = "ABCDEFGH"  # the votes for each code, and the number of the clip
NO_VOTES = np.zeros(len(labels.FERPLUS_VOTES), np.int64)
AGREEMENT = 0.99  # share of clips whose label must have the most votes; otherwise the columns are others
REMEDY = "get it again, or remove it, it is optional"


def read_votes(path: pathlib.Path, problems: Problems) -> dict[str, np.ndarray]:
    """Returns name of the clip, such as '01600' -> votes, int64 [10] in the order of `labels.FERPLUS_VOTES`.

    A row has the votes for the codes 1 to 7, then the number of the clip. The first may be a header.
    """
    try:
        rows = list(_rows(path))
    except Unreadable as error:
        problems.mistake(path, error.what)
        return {}
    votes = {}
    for line, cells in enumerate(rows, start=1):
        numbers = [whole for cell in cells if (whole := number(cell, LARGEST_INTEGER)) is not None and whole >= 0]
        if len(numbers) == len(COLUMNS):
            *counts, clip = map(int, numbers)
            votes[f"{clip:05d}"] = NO_VOTES.copy()
            votes[f"{clip:05d}"][[_column(code) for code in CODES]] = counts
        elif any(cells) and line > 1:
            said = ",".join(cells)[:60]
            problems.mistake(f"{path}:{line}", f"is '{said}' where seven votes and a clip are expected: correct it")
    return votes


def agree(votes: Mapping[str, np.ndarray], codes: Mapping[str, int]) -> bool:
    """Whether the labels have the most votes."""
    known = [(votes[name], _column(code)) for name, code in codes.items() if name in votes]
    return sum(counts[column] == counts.max() for counts, column in known) >= AGREEMENT * len(known)


def _column(code: int | str) -> int:
    return labels.FERPLUS_VOTES.index(labels.canonical("dfew", code))


def _rows(path: pathlib.Path) -> Iterator[list[str]]:
    """Yields the texts in `COLUMNS` of every row of the first sheet, '' in empty cells."""
    parts = read_sheet(path, (SHEET, STRINGS), REMEDY)
    if SHEET not in parts:
        raise Unreadable(path, f"has no {SHEET}", REMEDY)
    strings = ["".join(entry.itertext()) for entry in parts[STRINGS].iter(f"{MAIN}si")] if STRINGS in parts else []
    for row in parts[SHEET].iter(f"{MAIN}row"):
        cells = {}
        for cell in row.iter(f"{MAIN}c"):
            text = cell.findtext(f"{MAIN}v") or ""
            if cell.get("t") == "s":  # a place in the table of texts
                place = whole_number(text, 0, len(strings) - 1)
                text = "" if place is None else strings[place]
            cells[cell.get("r", "").rstrip("0123456789")] = text.strip()
        yield [cells.get(column, "") for column in COLUMNS]
