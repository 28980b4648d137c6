"""The lists of DFEW: the clips of the five test sets with their codes, checked against the training sets."""

from __future__ import annotations

import dataclasses
import pathlib

from fer_jax import labels
from fer_jax.parsing import read_text, table_rows, whole_number
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


@dataclasses.dataclass(frozen=True)
class Labeled:
    """A clip with a single label: its code, and the fold (0..4) whose test set it belongs to."""

    code: int
    fold: int


def read_folds(root: pathlib.Path, problems: Problems) -> dict[int, Labeled]:
    """Returns number -> clip of all clips that are scored, by number.

    Args:
        root: the folder EmoLabel_DataSplit.
        problems: for wrong rows, clips of two test sets, and training sets that are not the other four tests.

    Raises:
        UserError: if a list of a test set does not exist.
    """
    tests = folder_of(root, FOLDERS["test"], "DFEW")
    clips: dict[int, Labeled] = {}
    for fold, name in enumerate(SETS):
        path = tests / f"{name}.csv"
        for number, code in _read(path, problems).items():
            if number in clips:
                other = f"{SETS[clips[number].fold]}.csv"
                problems.mistake(path, f"has the clip {number}, which {other} has too: get the lists again")
            else:
                clips[number] = Labeled(code, fold)
    if any((root / name).is_dir() for name in FOLDERS["train"]):
        trains = folder_of(root, FOLDERS["train"], "DFEW")
        for fold, name in enumerate(SETS):
            _check_training(trains / f"{name}.csv", fold, clips, problems)
    return dict(sorted(clips.items()))


def _check_training(path: pathlib.Path, fold: int, clips: dict[int, Labeled], problems: Problems) -> None:
    wanted = {number: clip.code for number, clip in clips.items() if clip.fold != fold}
    there = _read(path, problems)
    others = sorted(set(wanted) ^ set(there))
    relabeled = sorted(number for number in set(wanted) & set(there) if wanted[number] != there[number])
    if others:
        problems.mistake(
            path,
            f"is not the other four test sets together ({len(others):,} clips differ, such as {others[0]}): get the "
            "lists again",
        )
    if relabeled:
        problems.mistake(
            path,
            f"labels {len(relabeled):,} clips, such as {relabeled[0]}, unlike the test sets: get it again",
        )


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
