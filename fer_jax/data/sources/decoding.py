"""Decodes the records of a split to arrays: fields are decoded once and cached, pixels are in memory or on disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from fer_jax.data.sources import clips
from fer_jax.data.sources.on_disk import LazyPictures, RecordReader, fit_in_memory
from fer_jax.data.sources.records import file_stamps, in_chunks, pictures_in, place_of, readable, records
from fer_jax.errors import UserError
from fer_jax.parsing import parse_array, read_bytes, read_json

FIELDS_LEFT_ON_DISK = frozenset({"occlusion_mask"})  # ground truth for analyses, never fed to a network
PICTURES = ("image", "frames")

Arrays = dict[str, Any]


def decoded(builder: Any, split: str, on_disk: bool) -> Arrays:
    """Returns the fields of all examples, by name; those per frame hold the frames of all clips one after the other.

    Decoded arrays are cached beside the data set for the next run.

    Args:
        builder: of a prepared data set.
        split: of the data set.
        on_disk: leave the pictures on disk, whatever their size. Larger ones than fit in memory stay there in any
            case. Then `image` or `frames` is a `LazyPictures`.

    Raises:
        UserError: for files that cannot be read.
    """
    beside = pathlib.Path(builder.data_path) / "decoded"
    stamp = file_stamps(builder.data_path)
    with readable(place_of(builder, split)):
        stored = records(builder, split)
        fields = _read_kept(beside / f"{split}_fields", stamp)
        if fields is None:
            fields = _decode_fields(builder, stored)
            _keep(beside / f"{split}_fields", fields, stamp)
        pictures = _lazy_pictures(builder, split, stored, fields)
        if pictures is None:
            return fields
        name, lazy = pictures
        if on_disk or not fit_in_memory(lazy.shape):
            return fields | {name: lazy}
        pixels = _read_kept(beside / split, stamp)
        if pixels is None:
            pixels = {name: lazy[:]}
            _keep(beside / split, pixels, stamp)
        return fields | pixels


def texts(builder: Any, split: str, name: str) -> list[str]:
    """Returns a text field of all examples of a split."""
    import tensorflow_datasets as tfds

    wanted: Any = tfds.features.FeaturesDict({name: builder.info.features[name]})
    return [wanted.deserialize_example_np(data)[name].decode() for data in in_chunks(records(builder, split))]


def _decode_fields(builder: Any, stored: Any) -> Arrays:
    """Decodes everything but pictures and text."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    left = {*PICTURES, *FIELDS_LEFT_ON_DISK}
    wanted: Any = tfds.features.FeaturesDict({name: f for name, f in features.items() if name not in left})
    moving = "frames" in features
    columns: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    lengths = []
    for data in in_chunks(stored):
        example = wanted.deserialize_example_np(data)
        for name, values in columns.items():
            values.append(np.asarray(example[name]))
        if moving:
            lengths.append(len(pictures_in(data, "frames")))
    arrays: Arrays = {"length": np.array(lengths, np.int32)} if moving else {}
    for name, values in columns.items():
        if moving and clips.is_per_frame(name):
            # The array of an empty clip has lost its shape.
            array = np.concatenate([column for column in values if len(column)] or values)
        else:
            array = np.stack(values)
        if array.dtype != object and array.dtype.kind not in "SU":  # text serves messages, not networks
            arrays[name] = array.astype(np.int32) if array.dtype == np.int64 else array
    return arrays


def _lazy_pictures(
    builder: Any, split: str, stored: Any, fields: Mapping[str, np.ndarray]
) -> tuple[str, LazyPictures] | None:
    """Returns the name of the feature with the pictures, and the pictures; None for a data set without any."""
    features = builder.info.features
    name = next((name for name in PICTURES if name in features), None)
    if name is None:
        return None
    if name == "frames":
        shape, length = features[name].feature.shape, fields["length"]
        record = np.repeat(np.arange(len(length), dtype=np.int32), length)
        number = np.arange(len(record), dtype=np.int32) - np.repeat(np.cumsum(length) - length, length)
    else:
        shape, count = features[name].shape, len(stored)
        record, number = np.arange(count, dtype=np.int32), np.zeros(count, np.int32)
    if None in shape:  # a data set that takes any size; ours must all have that of the first picture
        encoded = next(picture for data in in_chunks(stored) for picture in pictures_in(data, name))
        first = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
        assert first is not None, "the first picture cannot be decoded"
        shape = (*first.shape[:2], *shape[2:])
    reader = RecordReader(stored, name, shape, record, number.astype(np.int32), place_of(builder, split))
    return name, LazyPictures(reader, shape, np.arange(len(record), dtype=np.int32))


def _read_kept(folder: pathlib.Path, stamp: Mapping[str, list[int]]) -> Arrays | None:
    """Returns the arrays that an earlier run kept in a folder; None unless they are whole and of the same records."""
    with contextlib.suppress(UserError, ValueError, KeyError, TypeError, AttributeError):
        kept = read_json(folder / "stamp.json")
        if kept["records"] == stamp:
            files = {name: read_bytes(folder / f"{name}.npy") for name in kept["arrays"]}
            if kept["arrays"] == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}:
                return {name: parse_array(data) for name, data in files.items()}
    return None


def _keep(folder: pathlib.Path, arrays: Mapping[str, np.ndarray], stamp: Mapping[str, list[int]]) -> None:
    """Stores arrays for the next run; on a read-only or full disk it does nothing."""
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        temporary = pathlib.Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            sums = {}
            for name, values in arrays.items():
                path = temporary / f"{name}.npy"
                np.save(path, values)
                with path.open("rb") as file:  # not read whole: it may fill half of the memory
                    sums[name] = hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore
            kept = {"records": stamp, "arrays": sums}
            (temporary / "stamp.json").write_text(json.dumps(kept))
            os.rename(temporary, folder)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
