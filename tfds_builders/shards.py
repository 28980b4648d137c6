"""Writes a split as array_record files, by several processes, so that a build that was killed goes on.

A shard is a run of examples in order. It is written under a temporary name, and counts when its small record of what it
was made from lies beside it: the names, sizes and times of its files and how they were read. The next build keeps each
shard whose record still says the same, and writes the others.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import os
import pathlib
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from array_record.python import array_record_module  # pyright: ignore
from tqdm import tqdm

from tfds_builders.listing import Item
from tfds_builders.problems import BadPicture

SHARD_BYTES = 128 << 20
SHARD_EXAMPLES = 4096  # of one picture each
FEW = 256  # pictures that one process writes sooner than a second one starts


class Encoder(Protocol):
    """What the writer needs of a builder; it must pickle.

    Attributes:
        PICTURES_PER_EXAMPLE: how many pictures an example stands for, roughly.
    """

    PICTURES_PER_EXAMPLE: ClassVar[int]

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        """Returns the example's fields and notes on what was converted; raises `BadPicture`."""
        ...

    def serialize(self, example: Mapping[str, Any]) -> bytes:
        """Returns the example as it is stored."""
        ...


@dataclasses.dataclass(frozen=True)
class Written:
    """What became of a shard.

    Attributes:
        labels: of the examples in it.
        num_bytes: its size.
        gaps: lines about examples that could not be had.
        notes: lines about pictures that were converted.
    """

    labels: list[int]
    num_bytes: int
    gaps: list[str]
    notes: list[str]


def write_split(
    encoder: Encoder, split: str, items: Sequence[Item], folder: pathlib.Path, jobs: int, settings: str
) -> list[tuple[pathlib.Path, Written]]:
    """Writes the examples of a split and returns its shards in order, also those that came out without an example.

    Args:
        encoder: the builder.
        split, items: the examples.
        folder: where shards lie until all are whole; made where it is missing.
        jobs: processes; 0 is as many as there are cores.
        settings: whatever else decides what is written; shards of other settings are written anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weight = encoder.PICTURES_PER_EXAMPLE
    parts = _parts(items, max(SHARD_EXAMPLES // weight, 1))
    tasks = [(folder / f"{split}-{start:08d}", items[start:stop]) for start, stop in parts]
    with tqdm(total=len(items), desc=f"writing {split}", unit=" examples", disable=None) as bar:
        done: dict[pathlib.Path, Written] = {}
        waiting = []
        for path, part in tasks:
            if (kept := _kept(path, _stamp(part, settings))) is not None:
                done[path] = kept
                bar.update(len(part))
            else:
                waiting.append((path, part))
        cores = jobs or _cores()
        if cores == 1 or len(waiting) == 1 or weight * sum(len(part) for _, part in waiting) < FEW:
            for path, part in waiting:
                done[path] = write_shard(encoder, path, part, settings)
                bar.update(len(part))
        else:
            # Fresh processes: forking one that runs XLA's threads may hang.
            context = multiprocessing.get_context("spawn")
            pickled = pickle.dumps(encoder)
            with concurrent.futures.ProcessPoolExecutor(
                min(cores, len(waiting)), context, initializer=_take_encoder, initargs=(pickled,)
            ) as pool:
                futures = {pool.submit(_write_in_worker, path, part, settings): (path, part) for path, part in waiting}
                try:
                    for future in concurrent.futures.as_completed(futures):
                        path, part = futures[future]
                        done[path] = future.result()
                        bar.update(len(part))
                except BaseException:  # Ctrl-C too: whole shards stay, no further one is begun
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
    return [(path, done[path]) for path, _ in tasks]


def write_shard(encoder: Encoder, path: pathlib.Path, items: Sequence[Item], settings: str) -> Written:
    """Writes one file of examples and its record."""
    temporary = path.with_suffix(".writing")
    labels, gaps, notes = [], [], []
    writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
    try:
        for item in items:
            try:
                example, found = encoder.encode(item)
            except BadPicture as error:
                gaps.append(f"{item.name} {error}")
                continue
            notes += [f"{item.name}: {note}" for note in found]
            writer.write(encoder.serialize(example))
            labels.append(int(item.label))
    finally:
        writer.close()
    written = Written(labels, temporary.stat().st_size, gaps, notes)
    os.replace(temporary, path)
    record = dataclasses.asdict(written) | {"stamp": _stamp(items, settings)}
    partial = path.with_suffix(".json.writing")
    partial.write_text(json.dumps(record))
    os.replace(partial, path.with_suffix(".json"))
    return written


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_ENCODER: Encoder | None = None  # of a worker process, where it is unpickled once


def _take_encoder(pickled: bytes) -> None:
    global _ENCODER
    _ENCODER = pickle.loads(pickled)


def _write_in_worker(path: pathlib.Path, items: Sequence[Item], settings: str) -> Written:
    assert _ENCODER is not None
    return write_shard(_ENCODER, path, items, settings)


def _parts(items: Sequence[Item], most: int) -> list[tuple[int, int]]:
    """Divides the examples in runs of at most `most` and about `SHARD_BYTES` of original files."""
    parts, start, size = [], 0, 0
    for i, item in enumerate(items):
        size += sum(_size_and_time(file)[0] for file in item.files)
        if i + 1 - start == most or size >= SHARD_BYTES:
            parts.append((start, i + 1))
            start, size = i + 1, 0
    if start < len(items):
        parts.append((start, len(items)))
    return parts


def _kept(path: pathlib.Path, stamp: str) -> Written | None:
    """Returns what an earlier build wrote there, if it is whole, has no gap, and was made from the same."""
    try:
        record = json.loads(path.with_suffix(".json").read_text())
        if record.pop("stamp") == stamp and not record["gaps"] and path.stat().st_size == record["num_bytes"]:
            return Written(**record)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _stamp(items: Sequence[Item], settings: str) -> str:
    digest = hashlib.sha256(settings.encode())
    for item in items:
        for value in (item.label, item.crop, *item.fields.items()):
            digest.update(_bytes(value))
        for file in item.files:
            digest.update(repr((file, _size_and_time(file))).encode())
    return digest.hexdigest()


def _bytes(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return repr((value.shape, value.dtype.str)).encode() + value.tobytes()
    if isinstance(value, tuple):
        return b"".join(map(_bytes, value))
    return repr(value).encode()


def _size_and_time(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
