"""From a split of a prepared data set to arrays: fields decoded once and kept, pixels in memory or left on disk."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from fer_jax.data.sources import clips
from fer_jax.data.sources.on_disk import LazyPictures, RecordReader, fit_in_memory, pictures_in
from fer_jax.data.sources.workers import decoded_by_workers
from fer_jax.errors import UserError

FIELDS_LEFT_ON_DISK = frozenset({"occlusion_mask"})  # ground truth for analyses, never fed to a network
PICTURES = ("image", "frames")
CHUNK = 1024  # examples read at once

Arrays = dict[str, Any]


def decoded(builder: Any, split: str, on_disk: bool, workers: int = 0) -> Arrays:
    """Returns the fields of all examples, by name; those per frame hold the frames of all clips one after the other.

    What was decoded is kept beside the data set, for the next run to load.

    Args:
        builder: of a prepared data set.
        split: of it.
        on_disk: leave the pictures there, whatever their size; they stay there in any case where they would fill too
            much of the memory. Then `image` or `frames` is a `LazyPictures`.
        workers: processes that decode what stays on disk; 0 for threads of this one.

    Raises:
        UserError: for files that cannot be read.
    """
    beside = pathlib.Path(builder.data_path) / "decoded"
    stamp = _sizes(builder.data_path, "*record*")
    fields = _kept(beside / f"{split}_fields", stamp)
    try:
        records = builder.as_data_source(split).data_source
        if fields is None:
            fields = _fields(builder, records)
            _keep(beside / f"{split}_fields", fields, stamp)
        pictures = _pictures(builder, split, records, fields)
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        message = (str(error).splitlines() or ["no message"])[0]
        raise UserError(
            f"{builder.info.name}, split {split}, under {builder.data_path} cannot be read "
            f"({type(error).__name__}: {message}): it is damaged or another version wrote it; delete that folder and "
            "prepare it again"
        ) from error
    if pictures is None:
        return fields
    name, stored = pictures
    if on_disk or not fit_in_memory(stored.shape):
        return fields | {name: decoded_by_workers(stored, workers) if workers else stored}
    pixels = _kept(beside / split, stamp)
    if pixels is None:
        pixels = {name: stored[:]}
        _keep(beside / split, pixels, stamp)
    return fields | pixels


def texts(builder: Any, split: str, name: str) -> list[str]:
    """Returns a field of text of all examples of a split."""
    import tensorflow_datasets as tfds

    wanted: Any = tfds.features.FeaturesDict({name: builder.info.features[name]})
    records = builder.as_data_source(split).data_source
    return [wanted.deserialize_example_np(data)[name].decode() for data in _chunks(records)]


def _fields(builder: Any, records: Any) -> Arrays:
    """Decodes everything but pictures, a chunk of records at a time."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    left = {*PICTURES, *FIELDS_LEFT_ON_DISK}
    wanted: Any = tfds.features.FeaturesDict({name: f for name, f in features.items() if name not in left})
    moving = "frames" in features
    columns: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    lengths = []
    for data in _chunks(records):
        example = wanted.deserialize_example_np(data)
        for name, values in columns.items():
            values.append(np.asarray(example[name]))
        if moving:
            lengths.append(len(pictures_in(data, "frames")))
    arrays: Arrays = {"length": np.array(lengths, np.int32)} if moving else {}
    for name, values in columns.items():
        if moving and clips.is_per_frame(name):
            # An empty clip's array has lost its shape.
            array = np.concatenate([column for column in values if len(column)] or values)
        else:
            array = np.stack(values)
        if array.dtype == object or array.dtype.kind in "SU":
            continue  # names of files and such serve messages, not networks
        arrays[name] = array.astype(np.int32) if array.dtype == np.int64 else array
    return arrays


def _pictures(
    builder: Any, split: str, records: Any, fields: Mapping[str, np.ndarray]
) -> tuple[str, LazyPictures] | None:
    """Returns the feature with the pictures, and the pictures."""
    features = builder.info.features
    name = next((name for name in PICTURES if name in features), None)
    if name is None:
        return None
    if name == "frames":
        shape, length = features[name].feature.shape, fields["length"]
        record = np.repeat(np.arange(len(length), dtype=np.int32), length)
        number = np.arange(len(record), dtype=np.int32) - np.repeat(np.cumsum(length) - length, length)
    else:
        shape, count = features[name].shape, len(records)
        record, number = np.arange(count, dtype=np.int32), np.zeros(count, np.int32)
    if None in shape:  # a data set that takes any size: that of its first picture, which all must have
        first = cv2.imdecode(np.frombuffer(_encoded(records, name), np.uint8), cv2.IMREAD_UNCHANGED)
        assert first is not None, "the first picture cannot be decoded"
        shape = (*first.shape[:2], *shape[2:])
    where = f"{builder.info.name}, split {split}, under {builder.data_path}"
    reader = RecordReader(records, name, shape, record, number.astype(np.int32), where)
    return name, LazyPictures(reader, shape, np.arange(len(record), dtype=np.int32))


def _chunks(records: Any) -> Iterator[bytes]:
    for start in range(0, len(records), CHUNK):
        yield from records.__getitems__(list(range(start, min(start + CHUNK, len(records)))))


def _encoded(records: Any, name: str) -> bytes:
    """Returns the first picture there is, as its file."""
    for data in _chunks(records):
        for picture in pictures_in(data, name):
            return picture
    raise ValueError("holds no picture")


def _sizes(folder: str | os.PathLike[str], pattern: str) -> dict[str, int]:
    return {f.name: f.stat().st_size for f in sorted(pathlib.Path(folder).glob(pattern))}


def _kept(folder: pathlib.Path, records: Mapping[str, int]) -> Arrays | None:
    """Returns what an earlier run kept there, if it is whole and of the same records."""
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError):  # missing, or not whole: it is made anew
        stamp = json.loads((folder / "stamp.json").read_text())
        if stamp["records"] == records and stamp["arrays"] == _sizes(folder, "*.npy"):
            return {f.stem: np.load(f) for f in sorted(folder.glob("*.npy"))}
    return None


def _keep(folder: pathlib.Path, arrays: Mapping[str, np.ndarray], records: Mapping[str, int]) -> None:
    """Stores arrays; a read-only or full disk costs the next run its decoding, nothing else."""
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        temporary = pathlib.Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            for key, values in arrays.items():
                np.save(temporary / f"{key}.npy", values)
            stamp = {"records": records, "arrays": _sizes(temporary, "*.npy")}
            (temporary / "stamp.json").write_text(json.dumps(stamp))
            os.rename(temporary, folder)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
