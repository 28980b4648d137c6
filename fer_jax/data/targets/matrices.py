"""Transition matrices T[i, j] = P(label j | truth i), by the names of the classes: named ones, and files of the user.

A file is CSV (a first row with the names of the labels, then for each true class its name and a row of numbers) or
JSON, {"classes": [names], "matrix": [[numbers], ...]}.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fer_jax.errors import UserError
from fer_jax.labels import EMOTIONS, class_name, emotion_of
from fer_jax.parsing import numbers, read_json, read_text, table_rows
from fer_jax.storage import local

ROUNDING = 1e-3  # by how much a row may miss 1: probabilities are printed with three or four digits

# FER-2013's labels (columns) of the training pictures of each majority of FER+'s label.csv (rows), without the black
# pictures and those that occur in a test split: 24,325 pictures, 67.8 % of them on the diagonal. Axes: EMOTIONS[:7].
FER2013 = (
    (4011, 319, 155, 2082, 985, 26, 1073),
    (301, 6495, 197, 42, 82, 9, 83),
    (19, 117, 2142, 29, 95, 2, 477),
    (163, 7, 17, 1788, 227, 58, 688),
    (11, 16, 20, 71, 1569, 51, 287),
    (0, 0, 1, 1, 18, 77, 4),
    (0, 3, 56, 10, 24, 3, 414),
)
NAMED = {"fer2013": (EMOTIONS[:7], FER2013)}


def transition_matrix(name: str, classes: Sequence[str], field: str) -> Float[np.ndarray, "C C"]:
    """Returns a transition matrix whose axes are `classes`, its rows scaled to sum to exactly one.

    Args:
        name: a key of `NAMED`, or a file.
        classes: of the data set.
        field: of the config that names it, for messages.

    Raises:
        UserError: for a file that is not such a matrix, a row that is not a distribution, and different classes.
    """
    if name in NAMED:
        names, counts = NAMED[name]
        matrix = np.array(counts, float)
        matrix /= matrix.sum(axis=1, keepdims=True)
    else:
        names, matrix = _read(pathlib.Path(local(name, field)), field)
    known, wanted = [_name(n) for n in names], [_name(n) for n in classes]
    if set(known) != set(wanted):
        raise UserError(
            f"{field}={name!r} is a matrix of the classes {', '.join(names)}, but the data set has "
            f"{', '.join(classes)}: give another matrix, or leave classes out with config.data.drop_classes"
        )
    order = [known.index(n) for n in wanted]
    return matrix[np.ix_(order, order)]


def _read(path: pathlib.Path, field: str) -> tuple[list[str], Float[np.ndarray, "C C"]]:
    """Reads (names of the classes, matrix) from a file."""
    advice = f"give {field} one of {', '.join(NAMED)}, or a square table in CSV or JSON with the names of the classes"
    if path.suffix.lower() == ".json":
        stored = read_json(path, advice)
        stored = stored if isinstance(stored, dict) else {}
        columns = rows = stored.get("classes") or []
        words = stored.get("matrix")
    else:
        table = [row for _, row in table_rows(read_text(path, advice).splitlines(), path, advice)]
        columns, rows, words = (table or [[]])[0][1:], [row[0] for row in table[1:]], [row[1:] for row in table[1:]]
    size = len(columns) if isinstance(columns, list) else 0
    square = isinstance(words, list) and len(words) == size and all(isinstance(row, list) for row in words)
    values = [numbers(map(str, row)) for row in words] if square and words else []
    if not size or any(len(row) != size for row in values) or not values:
        raise UserError(f"{path} is not a transition matrix: {advice}")
    names = [str(name) for name in columns]
    if [_name(n) for n in names] != [_name(str(n)) for n in rows] or len({_name(n) for n in names}) < size:
        raise UserError(f"{path}: rows and columns must be the same classes in the same order, each once")
    matrix = np.array(values)
    for name, row in zip(names, matrix, strict=True):
        if (row < 0).any() or abs(row.sum() - 1) > ROUNDING:
            raise UserError(
                f"{path}: the row of {name} has the sum {row.sum():g} and the smallest number {row.min():g}; it must "
                "be the distribution of the labels of pictures that truly belong to this class"
            )
    return names, matrix / matrix.sum(axis=1, keepdims=True)


def _name(name: str) -> str:
    return emotion_of(name) or class_name(name).lower()
