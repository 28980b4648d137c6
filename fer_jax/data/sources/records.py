"""The records of a prepared split on disk: their contents, their digest, and one-line errors for damaged ones."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from fer_jax.errors import UserError, first_line, told
from fer_jax.parsing import read_json
from fer_jax.storage import write_whole

DIGESTS = "data_digest.json"  # beside the records: by split, its digest and the files that it is of
CHUNK = 1024  # records read at once


def records(builder: Any, split: str) -> Any:
    """Returns the records of a split: a length, and `__getitems__(rows)` that returns serialized examples."""
    return builder.as_data_source(split).data_source


def place_of(builder: Any, split: str) -> str:
    """Returns where a split is, for messages."""
    return f"{builder.info.name}, split {split}, under {builder.data_path}"


def in_chunks(stored: Any) -> Iterator[bytes]:
    """Yields all records in row order."""
    for start in range(0, len(stored), CHUNK):
        yield from stored.__getitems__(list(range(start, min(start + CHUNK, len(stored)))))


def pictures_in(record: bytes, feature: str) -> Sequence[bytes]:
    """Returns the encoded pictures of a record: one of an image, all frames of a clip."""
    return _features(record)[feature].bytes_list.value


def data_digest(builder: Any, split: str) -> str:
    """Returns the SHA-256 of a prepared split, in hexadecimal digits.

    It covers the class names and, in row order, each row's label (its votes where nothing is labeled) and the bytes of
    its pictures as stored. How the rows are divided into files does not matter. Preparation writes it beside the data;
    for data prepared before that it is computed once and kept there.

    Raises:
        UserError: if the records have changed since the digest was written.
    """
    kept = pathlib.Path(builder.data_path) / DIGESTS
    files = file_stamps(builder.data_path)
    digests, known = {}, {}
    with contextlib.suppress(UserError, TypeError, ValueError):  # none yet, or damaged
        digests = dict(read_json(kept))
        known = dict(digests.get(split, {}))
    if "sha256" in known and known.get("files") == files:
        return known["sha256"]
    with readable(place_of(builder, split)):
        sha256 = _sha256(builder, split)
    if known.get("sha256", sha256) != sha256:
        raise UserError(
            f"{place_of(builder, split)} has changed since it was prepared: put its files back, or delete that folder "
            "and prepare it again"
        )
    with contextlib.suppress(OSError):  # a read-only folder: the next run computes it again
        write_whole(kept, json.dumps(digests | {split: {"sha256": sha256, "files": files}}, indent=1) + "\n")
    return sha256


def _sha256(builder: Any, split: str) -> str:
    features = builder.info.features
    labels = [name for name in features if name == "label"] or sorted(n for n in features if n.startswith("votes"))
    pictures = [name for name in ("image", "frames") if name in features]
    digest = hashlib.sha256()
    for name in features["label"].names if "label" in features else ():
        digest.update(name.encode() + b"\0")
    for record in in_chunks(records(builder, split)):
        stored = _features(record)
        for name in labels:
            for value in stored[name].int64_list.value:
                digest.update(value.to_bytes(8, "little", signed=True))
        for name in pictures:
            for picture in stored[name].bytes_list.value:
                digest.update(len(picture).to_bytes(8, "little") + picture)
    return digest.hexdigest()


def _features(record: bytes) -> Any:
    from tensorflow_datasets.proto import tf_example_pb2

    example: Any = tf_example_pb2.Example.FromString(record)  # pyright: ignore
    return example.features.feature


def file_stamps(folder: Any) -> dict[str, list[int]]:
    """Returns [size, time of the last change in whole seconds] of each file of records in a folder.

    Sizes alone do not tell records apart: their files grow by blocks of 64 kB.
    """
    status = {f.name: f.stat() for f in sorted(pathlib.Path(folder).glob("*record*"))}
    return {name: [s.st_size, int(s.st_mtime)] for name, s in status.items()}


def readable(where: str) -> contextlib.AbstractContextManager[None]:
    """Turns an exception that damaged records cause in the `with` block into one line that says `where` they are."""
    return told(
        lambda error: (
            f"{where} cannot be read ({first_line(error)}): it is damaged, or the disk failed; delete that folder and "
            "prepare it again"
        )
    )
