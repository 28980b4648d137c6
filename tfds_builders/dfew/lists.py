"""The lists of DFEW: the clips of the five test sets with their codes, checked against the training sets."""

from __future__ import annotations

import pathlib

from fer_jax import labels
from fer_jax.parsing import read_text, table_rows, whole_number
from tfds_builders.label_lists import Labeled, join_folds
from tfds_builders.layout import folder_of
from tfds_builders.problems import Problems

SETS = tuple(f"set_{number}" for number in range(1, 6))
MARKS = (
    "(single-labeled)",
    "(single_labeled)",
    "_single-labeled",
    "_single_labeled",
)  # as in the archives, and as users name them
FOLDERS = {part: tuple(part + mark for mark in MARKS) for part in ("train", "test")}
NO_LABEL = 0
CODES = tuple(code for code in labels.CODES["dfew"] if code != NO_LABEL)


def read_folds(root: pathlib.Path, problems: Problems) -> dict[int, Labeled[int]]:
    """Returns number -> clip of all clips that are scored, by number.

    Args:
        root: the folder EmoLabel_DataSplit.
        problems: for wrong rows, and as `label_lists.join_folds`.

    Raises:
        UserError: if a list does not exist.
    """
    parts = [part for part in FOLDERS if part == "test" or any((root / name).is_dir() for name in FOLDERS[part])]
    lists = {
        part: [
            (path, _read(path, problems))
            for path in (folder_of(root, FOLDERS[part], "DFEW") / f"{n}.csv" for n in SETS)
        ]
        for part in parts
    }
    return join_folds(lists["test"], lists.get("train", ()), problems)


def _read(path: pathlib.Path, problems: Problems) -> dict[int, int]:
    """Returns number -> code of the rows `video_name,label`, such as `1600,3`; the header may be missing."""
    text = read_text(path, "get the lists of DFEW again", damaged="replace")
    rows: dict[int, int] = {}
    for line, row in table_rows(text.splitlines(), path, "get the lists of DFEW again"):
        fields = [field.strip() for field in row]
        if not any(fields) or (line == 1 and fields[0] == "video_name"):
            continue
        where = f"{path}:{line}"
        number = whole_number(fields[0])
        if len(fields) != 2 or number is None:
            problems.mistake(where, f"is '{','.join(row)[:60]}' where '1600,3' is expected: get the list again")
        elif fields[1] not in map(str, CODES):
            problems.mistake(
                where, f"has the label {fields[1][:20]}, and codes are {CODES[0]} to {CODES[-1]}: correct it"
            )
        elif number in rows:
            problems.mistake(where, f"names the clip {number} a second time: remove one of the rows")
        else:
            rows[number] = int(fields[1])
    return rows
