"""Reads the label files of both releases of AffectNet into the same rows."""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from fer_jax import parsing
from fer_jax.errors import UserError
from fer_jax.faces.pictures import BadPicture
from fer_jax.parsing import table_rows, text_lines, whole_number
from tfds_builders.listing import files_below, folders_in, pictures_in
from tfds_builders.problems import Problems

COLUMNS = (
    *("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height"),
    *("facial_landmarks", "expression", "valence", "arousal"),
)
CODES = range(11)
EMOTIONS = 8  # codes from 8 are none, uncertain, no face
MARKS = 68
MOST_BYTES = 1 << 20  # of an annotation, which holds 136 numbers at most


@dataclasses.dataclass(frozen=True)
class Row:
    """One annotated picture.

    Attributes:
        name: 'folder/file' in the CSV release, the number in the other.
        code: 0 .. 10.
        box: (x, y, width, height) in pixels of the photo; None if the picture is already cropped.
        landmarks: float32 [68, 2] in pixels of the picture; None if they are in a file beside the picture.
        valence, arousal: -1 .. 1; None if they are in files beside the picture.
    """

    name: str
    code: int
    box: tuple[float, float, float, float] | None = None
    landmarks: np.ndarray | None = None
    valence: float | None = None
    arousal: float | None = None


def read_csv(path: pathlib.Path, problems: Problems) -> list[Row]:
    """Reads training.csv or validation.csv; some copies of the second have no header."""
    rows, seen = [], set()
    # No field has a comma in it.
    for number_, line in table_rows(text_lines(path), path, "get the list again", quoting=csv.QUOTE_NONE):
        if number_ == 1 and line[0].strip() == COLUMNS[0]:
            if tuple(word.strip() for word in line) != COLUMNS:
                expected = ",".join(COLUMNS)
                raise UserError(f"{path}: the header is {','.join(line)[:80]} where {expected} is expected")
            continue
        if (row := _parsed(line, f"{path}:{number_}", problems)) is None:
            continue
        if row.name in seen:
            problems.mistake(f"{path}:{number_}", f"names {row.name} a second time: remove one of the rows")
            continue
        seen.add(row.name)
        rows.append(row)
    return rows


def _parsed(line: list[str], where: str, problems: Problems) -> Row | None:
    if len(line) != len(COLUMNS):
        problems.mistake(where, f"has {len(line)} fields where there are {len(COLUMNS)}: get the list again")
        return None
    name, *box, marks, code, valence, arousal = (word.strip() for word in line)
    expression = whole_number(code)
    if expression is None or expression not in CODES:
        problems.mistake(where, f"has the expression {code[:20]}, and codes are 0 to 10: correct it")
        return None
    if expression >= EMOTIONS:  # nothing else is used, and the picture may be missing
        return Row(name, expression)
    landmarks = parsing.numbers(marks.split(";"), parsing.LARGEST_PIXEL)
    others = parsing.numbers((*box, valence, arousal), parsing.LARGEST_PIXEL)
    if not landmarks or not others:
        problems.mistake(where, "holds words where finite numbers are expected: get the list again")
        return None
    if len(landmarks) != 2 * MARKS:
        problems.mistake(where, f"has {len(landmarks) // 2} landmarks, not {MARKS}: get the list again")
        return None
    x, y, width, height, valence_, arousal_ = others
    points = np.array(landmarks, np.float32).reshape(MARKS, 2)
    return Row(name, expression, (x, y, width, height), points, valence_, arousal_)


def read_npy(folder: pathlib.Path, problems: Problems) -> tuple[list[Row], dict[str, str]]:
    """Reads train_set or val_set; returns rows, by rising number, and number -> picture.

    Only the expression is read here; the other three files of each picture are read when it is stored.
    """
    images = {name.rsplit(".", 1)[0]: path for name, path in pictures_in(folder / "images").items()}
    notes = {name for name in files_below(folder / "annotations") if name.endswith(".npy")}
    rows = []
    for name in sorted(images, key=_by_number):
        missing = [kind for kind in ("exp", "val", "aro", "lnd") if f"{name}_{kind}.npy" not in notes]
        if missing:
            problems.gap(images[name], f"has no annotations/{name}_{missing[0]}.npy: unpack the archive again")
            continue
        path = folder / "annotations" / f"{name}_exp.npy"
        try:
            (code,) = numbers(path, 1)
        except BadPicture as error:
            problems.mistake(path, str(error))
            continue
        if code not in CODES:
            problems.mistake(path, f"holds {code:g}, and codes are 0 to 10: unpack the archive again")
            continue
        rows.append(Row(name, int(code)))
    for name in sorted({note.rsplit("_", 1)[0] for note in notes} - set(images), key=_by_number):
        problems.gap(folder / "annotations" / f"{name}_exp.npy", f"is there without images/{name}.jpg: unpack again")
    return rows, images


def numbers(path: str | os.PathLike[str], count: int) -> np.ndarray:
    """Reads `count` finite numbers, float32; many of these files hold a number as text, '1' or '0.78'.

    Raises:
        BadPicture: for a file that holds something else.
    """
    try:
        stored = parsing.parse_array(parsing.read_bytes(path, "unpack the archive again", MOST_BYTES))
        values = np.ravel(stored).astype(np.float32)
    except parsing.Unreadable as error:
        raise BadPicture(error.what) from None
    except ValueError:
        raise BadPicture("does not hold numbers: unpack the archive again") from None
    if len(values) != count or not np.isfinite(values).all():
        raise BadPicture(f"holds {len(values)} numbers where {count} finite ones belong: unpack the archive again")
    return values


def folders_below(folder: pathlib.Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields (name, files) of every folder directly below, by rising number."""
    for name, path in sorted(folders_in(folder).items(), key=lambda found: _by_number(found[0])):
        yield name, files_below(path)


def _by_number(name: str) -> tuple[int, str]:
    place = whole_number(name)
    return (parsing.LARGEST_INTEGER, name) if place is None else (place, "")
