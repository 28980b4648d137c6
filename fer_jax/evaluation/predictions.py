"""The prediction table, in one format for scored data sets and for new pictures: one row per face.

source,row,frame,time,face,x,y,width,height,track,truth,expression,confidence,entropy,unsure,valence,arousal,status,p_<class>...

With more than `MANY_CLASSES` classes the columns of probabilities are left out.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fer_jax.evaluation.metrics import log_softmax, predicted_classes
from fer_jax.labels import AFFECT, MANY_CLASSES
from fer_jax.storage import write_whole


@dataclasses.dataclass(frozen=True)
class PredictionRow:
    """The prediction for one face; None is a value that does not apply.

    Attributes:
        source: the file, or 'data set:split'.
        row: place of the example in the split as stored, or in an array of faces.
        frame, time: of a video, from 0, and in seconds.
        face: number of the face in its picture, from 0.
        x, y, width, height: its box, in pixels of the picture.
        track: number of the person in a video.
        truth: the labeled class.
        expression: the most probable class; None if all are equally probable.
        confidence: its probability.
        entropy: of the probabilities, in nats.
        unsure: whether the confidence is below the model's threshold.
        valence, arousal: from -1 to 1, of a model that predicts them.
        status: 'ok', 'no_face', or 'unreadable: <reason>'.
        probabilities: of the classes, in the model's order.
        frame_weights: for a clip, the weight of each frame; in JSON only.
    """

    source: str
    row: int | None = None
    frame: int | None = None
    time: float | None = None
    face: int | None = None
    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    track: int | None = None
    truth: str | None = None
    expression: str | None = None
    confidence: float | None = None
    entropy: float | None = None
    unsure: bool | None = None
    valence: float | None = None
    arousal: float | None = None
    status: str = "ok"
    probabilities: tuple[float, ...] = ()
    frame_weights: tuple[float, ...] = ()


COLUMNS = tuple(field.name for field in dataclasses.fields(PredictionRow))[:-2]  # the last two are lists


def prediction_rows(
    logits: np.ndarray,
    classes: Sequence[str],
    *,
    source: str,
    rows: Sequence[int] | np.ndarray,
    frames: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    threshold: float | None = None,
    affect: np.ndarray | None = None,
) -> Iterator[PredictionRow]:
    """Yields a row for each of N examples.

    Args:
        logits: float [N, C].
        classes: C names.
        source: where the examples come from.
        rows: int [N], their rows there.
        frames: int [N], the number of the frame in its clip, if examples are frames of clips.
        labels: int [N], the true classes, if they are known.
        threshold: confidence below which a row is unsure.
        affect: float [N, 2], valence and arousal where the model predicts them.
    """
    log_probabilities, predicted = log_softmax(logits), predicted_classes(logits)
    probabilities = np.exp(log_probabilities)
    entropy = -(probabilities * log_probabilities).sum(axis=1)
    for n in range(len(logits)):
        yield PredictionRow(
            source=source,
            row=int(rows[n]),
            frame=None if frames is None else int(frames[n]),
            truth=None if labels is None else classes[int(labels[n])],
            expression=classes[int(predicted[n])] if predicted[n] < len(classes) else None,
            confidence=float(probabilities[n].max()),
            entropy=float(entropy[n]),
            unsure=None if threshold is None else bool(probabilities[n].max() < threshold),
            probabilities=tuple(probabilities[n].tolist()),
            **({} if affect is None else dict(zip(AFFECT, affect[n].tolist(), strict=True))),
        )


def write_table(path: Any, rows: Iterable[PredictionRow], classes: Sequence[str]) -> None:
    """Writes rows as a CSV file in UTF-8, completely or not at all; values that do not apply are empty."""
    write_whole(path, csv_text([csv_header(classes), *(csv_cells(row, classes) for row in rows)]))


def csv_header(classes: Sequence[str]) -> list[str]:
    """Returns the names of the table's columns."""
    return [*COLUMNS, *(f"p_{name}" for name in _shown(classes))]


def csv_cells(row: PredictionRow, classes: Sequence[str]) -> list[Any]:
    """Returns the cells of a row, in the order of `csv_header`."""
    probabilities = row.probabilities or [None] * len(classes)
    return [*(_cell(getattr(row, name)) for name in COLUMNS), *map(_cell, probabilities[: len(_shown(classes))])]


def csv_text(lines: Iterable[Sequence[Any]]) -> str:
    """Returns lines of cells as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def json_object(row: PredictionRow, classes: Sequence[str]) -> dict[str, Any]:
    """Returns a row as plain JSON values by the names of the columns; None where a value does not apply."""
    shown = _shown(classes)
    values = {f"p_{name}": row.probabilities[c] if row.probabilities else None for c, name in enumerate(shown)}
    weights = {"frame_weights": list(row.frame_weights)} if row.frame_weights else {}
    return {name: getattr(row, name) for name in COLUMNS} | values | weights


def _shown(classes: Sequence[str]) -> Sequence[str]:
    """Returns the classes whose probabilities are written."""
    return classes if len(classes) <= MANY_CLASSES else ()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return f"{value:.6g}" if isinstance(value, float) else value
