"""The votes of DFEW's ten annotators, from an .xlsx file: a ZIP archive of XML, which the standard library reads."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

import numpy as np

from fer_jax import labels
from fer_jax.parsing import LARGEST_INTEGER, Unreadable, number, read_sheet, whole_number
from tfds_builders.dfew.lists import CODES
from tfds_builders.problems import Problems

SHEET = "xl/worksheets/sheet1.xml"
STRINGS = "xl/sharedStrings.xml"
MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
COLUMN = re.compile("[A-Z]+")
AGREEMENT = 0.99  # share of clips whose label must have the most votes; otherwise the columns were misread
REMEDY = "get it again, or remove it, it is optional"
NAME_COLUMN = len(CODES)  # after the votes comes the name of the clip


def read_votes(path: pathlib.Path, problems: Problems) -> dict[int, np.ndarray]:
    """Returns number of the clip -> votes, int64 [10] in the order of `labels.FERPLUS_VOTES`.

    A row has the votes for the codes 1 to 7, or in the order of the header, then the name of the clip.
    """
    try:
        rows = list(_rows(path))
    except Unreadable as error:
        problems.mistake(path, error.what)
        return {}
    columns = [labels.FERPLUS_VOTES.index(labels.canonical("dfew", code)) for code in CODES]
    votes = {}
    for line, row in enumerate(rows, start=1):
        cells = [row.get(column, "") for column in range(NAME_COLUMN + 1)]
        numbers = [whole for cell in cells if (whole := _whole(cell)) is not None]
        if line == 1 and len(numbers) < len(cells):
            columns = _columns(cells[:NAME_COLUMN]) or columns
        elif not any(cells):
            continue
        elif len(numbers) < len(cells):
            problems.mistake(
                f"{path}:{line}", f"is '{','.join(cells)[:60]}' where seven votes and a clip are expected: correct it"
            )
        else:
            counts = np.zeros(len(labels.FERPLUS_VOTES), np.int64)
            counts[columns] = numbers[:NAME_COLUMN]
            votes[numbers[NAME_COLUMN]] = counts
    return votes


def agree(votes: Mapping[int, np.ndarray], codes: Mapping[int, int]) -> bool:
    """Whether the labels have the most votes."""
    known = [(votes[number], code) for number, code in codes.items() if number in votes]
    places = [labels.FERPLUS_VOTES.index(labels.canonical("dfew", code)) for _, code in known]
    right = sum(counts[place] == counts.max() for (counts, _), place in zip(known, places, strict=True))
    return right >= AGREEMENT * len(known)


def _columns(header: list[str]) -> list[int] | None:
    """Returns the vote of each column of a header such as '1happy,2sad'; None if it does not name emotions."""
    words = ["".join(filter(str.isalpha, cell)).lower() for cell in header]
    names = [labels.emotion_of(word) for word in words]
    if None in names or len(set(names)) < len(names):
        return None
    return [labels.FERPLUS_VOTES.index(str(name)) for name in names]


def _rows(path: os.PathLike[str]) -> Iterator[dict[int, str]]:
    """Yields column -> text of every row of the first sheet."""
    parts = read_sheet(path, (SHEET, STRINGS), REMEDY)
    if SHEET not in parts:
        raise Unreadable(path, f"has no {SHEET}", REMEDY)
    strings = [_text(entry) for entry in parts[STRINGS].iter(f"{MAIN}si")] if STRINGS in parts else []
    for row in parts[SHEET].iter(f"{MAIN}row"):
        cells: dict[int, str] = {}
        for place, cell in enumerate(row.iter(f"{MAIN}c")):
            name = COLUMN.match(cell.get("r", ""))
            value = cell.find(f"{MAIN}v")
            if cell.get("t") == "inlineStr":
                text = _text(cell)
            elif value is None or value.text is None:
                continue
            elif cell.get("t") != "s":
                text = value.text
            elif (index := whole_number(value.text, 0, len(strings) - 1)) is not None:
                text = strings[index]
            else:
                raise Unreadable(path, f"has a cell with text {value.text[:20]} of {len(strings)}", REMEDY)
            cells[_number(name[0]) if name else place] = text.strip()
        yield cells


def _text(element: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in element.iter(f"{MAIN}t"))


def _number(letters: str) -> int:
    """'A' -> 0, 'AA' -> 26."""
    value = 0
    for letter in letters:
        value = 26 * value + ord(letter) - ord("A") + 1
    return value - 1


def _whole(text: str) -> int | None:
    """Returns the number in a cell, '3' or '3.0'; None if there is none."""
    value = number(text, LARGEST_INTEGER)
    return int(value) if value is not None and value.is_integer() and value >= 0 else None
