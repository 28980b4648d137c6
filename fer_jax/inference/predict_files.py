"""`fer-jax predict`: writes the expressions of all faces in files to a table, and annotated pictures if requested."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from fer_jax.errors import UserError
from fer_jax.faces import video
from fer_jax.faces.inputs import Input
from fer_jax.inference.draw import Drawings
from fer_jax.inference.predict import Prediction, Reader, predict
from fer_jax.inference.table import ANOTHER, Table
from fer_jax.inference.trained import Trained


def predict_files(
    model: Trained,
    inputs: Sequence[Input],
    reader: Reader,
    *,
    out: pathlib.Path | None = None,
    draw: pathlib.Path | None = None,
) -> Counter[str]:
    """Predicts the expressions of all faces in photos, folders, videos and cameras.

    Args:
        model: of the reader.
        inputs: what `fer_jax.faces.inputs.find_inputs` found.
        reader: how they are read (see `Trained.reader`).
        out: the table, CSV, or JSON lines by its ending; the standard output if it is None.
        draw: a folder for annotated pictures and videos.

    Returns:
        How many 'pictures', 'faces', faces 'unclassified', pictures with 'no_face' and 'unreadable' ones were read now.

    Raises:
        UserError: if the table was made from something else, or cannot be written.
    """
    camera = any(source.kind == "camera" for source in inputs)
    if camera and out and out.exists():
        raise UserError(f"{out} exists, and predictions from a camera cannot be resumed: {ANOTHER}")
    if camera and reader.clip_logits:
        raise UserError(f"{model.card['method']} takes whole clips: record a video and give its file")
    table = Table(out, model.classes, [source.name for source in inputs], _origin(model, reader, inputs))
    counts: Counter[str] = Counter()
    if table.finished:
        print(f"{out} is finished{', nothing is drawn' if draw else ''}: delete it to predict again", file=sys.stderr)
        return counts
    drawings = Drawings(draw, model.classes) if draw else None
    finished = False
    try:
        with contextlib.closing(drawings) if drawings else contextlib.nullcontext():
            for prediction in _with_progress(inputs[table.skipped :], reader):
                table.add(prediction.rows)
                if drawings:
                    drawings.add(prediction.picture, prediction.rows)
                counts["pictures"] += 1
                for row in prediction.rows:
                    counts["faces" if row.status == "ok" else row.status.partition(":")[0]] += 1
                    counts["unclassified"] += row.status == "ok" and row.expression is None
        finished = True
    finally:
        table.close(finished)
        print(_summary(counts, out), file=sys.stderr, flush=True)
    return counts


def _with_progress(inputs: Sequence[Input], reader: Reader) -> Iterator[Prediction]:
    """Shows on a terminal how many pictures there are, and the time left."""
    total = None
    if sys.stderr.isatty() and not any(source.kind == "camera" for source in inputs):
        total = sum(1 if source.kind == "photo" else video.count_frames(source.path) for source in inputs)
    if reader.frames_per_second or reader.clip_logits:
        total = None  # fewer frames are taken, or several make one row
    with tqdm(total=total, unit="picture", disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:
        for prediction in predict(inputs, reader):
            yield prediction
            bar.update()


def _origin(model: Trained, reader: Reader, inputs: Sequence[Input]) -> dict[str, object]:
    """Returns what a table is made from, besides the names of its inputs."""
    return {
        "folder": os.getcwd() if any(not os.path.isabs(source.path) for source in inputs) else "",
        "detector": type(reader.detector).__name__,
        "crops": dataclasses.asdict(reader.crops),
        "model_sha256": model.card["run"]["params_sha256"],
        "classes": list(model.classes),
        "smoothing": reader.smoothing,
        "frames_per_second": reader.frames_per_second,
    }


def _summary(counts: Counter[str], out: pathlib.Path | None) -> str:
    faces, pictures = (f"{counts[name]:,} {name if counts[name] != 1 else name[:-1]}" for name in ("faces", "pictures"))
    parts = [f"{faces} in {pictures}"]
    if counts["unclassified"]:
        parts.append(f"{counts['unclassified']:,} without a prediction")
    if counts["no_face"]:
        parts.append(f"{counts['no_face']:,} without a face")
    if counts["unreadable"]:
        parts.append(f"{counts['unreadable']:,} that cannot be read")
    return "; ".join(parts) + (f"; {out}" if out else "")
