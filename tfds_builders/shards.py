"""Writes splits as array_record files, by several processes, so that a build that was killed goes on.

A shard is a run of examples in order. It is written under a temporary name, and counts when its small record of what it
was made from lies beside it: the names, sizes and times of its files and how they were read. The next build keeps each
shard whose record still says the same, and writes the others.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import pickle
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np
from array_record.python import array_record_module  # pyright: ignore
from tqdm import tqdm

from tfds_builders.listing import Item
from tfds_builders.problems import BadPicture, Gap

SHARD_BYTES = 128 << 20
SHARD_EXAMPLES = 4096
PARTS = 32  # of a split that has enough examples: work for so many processes
FEW = 256  # examples that one process writes sooner than a second one starts


class Encoder(Protocol):
    """What the writer needs of a builder; it must pickle. Of clips `PICTURES_PER_EXAMPLE` is above 1."""

    PICTURES_PER_EXAMPLE: ClassVar[int]

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        """Returns the example's fields and notes on what was converted; raises `BadPicture`."""
        ...

    def serialize(self, example: Mapping[str, Any]) -> bytes:
        """Returns the example as it is stored."""
        ...

    def beside(self, item: Item) -> Sequence[str]:
        """Returns the files that `encode` reads besides the item's own."""
        ...


@dataclasses.dataclass(frozen=True)
class Written:
    """What became of a shard.

    Attributes:
        labels: of the examples in it.
        num_bytes: its size.
        gaps: examples that could not be had, (where, what).
        notes: lines about pictures that were converted.
    """

    labels: list[int]
    num_bytes: int
    gaps: list[Gap]
    notes: list[str]


Shards = list[tuple[pathlib.Path, Written]]


def write_splits(
    encoder: Encoder, splits: Mapping[str, Sequence[Item]], folder: pathlib.Path, jobs: int, settings: str
) -> dict[str, Shards]:
    """Writes the examples of all splits; returns the shards of each in order, also those without an example.

    Args:
        encoder: the builder.
        splits: the examples.
        folder: where shards lie until all are whole; made where it is missing.
        jobs: processes; 0 is as many as there are cores.
        settings: whatever else decides what is written; shards of other settings are written anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weight = encoder.PICTURES_PER_EXAMPLE
    tasks = {
        split: [(folder / f"{split}-{start:08d}", items[start:stop]) for start, stop in _parts(items, weight)]
        for split, items in splits.items()
    }
    every = [task for some in tasks.values() for task in some]
    done: dict[pathlib.Path, Written] = {}
    with tqdm(total=sum(map(len, splits.values())), desc="writing", unit=" examples", disable=None) as bar:
        for path, part in every:
            if (kept := _kept(path, _stamp(encoder, part, settings))) is not None:
                done[path] = kept
                bar.update(len(part))
        waiting = [(path, part) for path, part in every if path not in done]
        for path, written, count in _written(encoder, waiting, jobs or _cores(), settings):
            done[path] = written
            bar.update(count)
    return {split: [(path, done[path]) for path, _ in some] for split, some in tasks.items()}


def _written(
    encoder: Encoder, waiting: Sequence[tuple[pathlib.Path, Sequence[Item]]], jobs: int, settings: str
) -> Iterator[tuple[pathlib.Path, Written, int]]:
    """Yields (path, what was written, examples) of each shard when it is whole, in any order."""
    examples = encoder.PICTURES_PER_EXAMPLE * sum(len(part) for _, part in waiting)
    if jobs == 1 or len(waiting) == 1 or examples < FEW:
        for path, part in waiting:
            yield path, write_shard(encoder, path, part, settings), len(part)
        return
    # Fresh processes: forking one that runs XLA's threads may hang.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        min(jobs, len(waiting)), context, initializer=_start_worker, initargs=(pickle.dumps(encoder),)
    ) as pool:
        with _without_interrupts():  # the workers start here, and Ctrl-C is for the build alone
            futures = {pool.submit(_write_in_worker, path, part, settings): (path, part) for path, part in waiting}
        try:
            for future in concurrent.futures.as_completed(futures):
                path, part = futures[future]
                yield path, future.result(), len(part)
        except BaseException:  # Ctrl-C too: whole shards stay, no further one is begun
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Holds Ctrl-C back inside the `with` block; processes that start in it never see it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def write_shard(encoder: Encoder, path: pathlib.Path, items: Sequence[Item], settings: str) -> Written:
    """Writes one file of examples and its record."""
    temporary = path.with_suffix(f".{os.getpid()}.writing")  # a worker of a build that was killed may still be here
    labels, gaps, notes = [], [], []
    writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
    try:
        for item in items:
            try:
                example, found = encoder.encode(item)
            except BadPicture as error:
                gaps.append(Gap(item.name, str(error)))
                continue
            notes += [f"{item.name}: {note}" for note in found]
            writer.write(encoder.serialize(example))
            labels.append(int(item.label))
    finally:
        writer.close()
    written = Written(labels, temporary.stat().st_size, gaps, notes)
    os.replace(temporary, path)
    record = dataclasses.asdict(written) | {"stamp": _stamp(encoder, items, settings)}
    partial = path.with_suffix(f".{os.getpid()}.json")
    partial.write_text(json.dumps(record))
    os.replace(partial, path.with_suffix(".json"))
    return written


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_ENCODER: Encoder | None = None  # of a worker process, where it is unpickled once


def _start_worker(pickled: bytes) -> None:
    """Readies a worker process: one thread for OpenCV, and an end where the build is killed."""
    global _ENCODER
    _ENCODER = pickle.loads(pickled)
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _write_in_worker(path: pathlib.Path, items: Sequence[Item], settings: str) -> Written:
    assert _ENCODER is not None
    return write_shard(_ENCODER, path, items, settings)


def _parts(items: Sequence[Item], weight: int) -> list[tuple[int, int]]:
    """Divides the examples in runs, by their number and by the bytes of their files.

    The number depends on the examples alone, so that a build goes on with other processes.
    """
    even = -(-len(items) // PARTS)
    most = min(max(even, FEW // (4 * weight), 1), max(SHARD_EXAMPLES // weight, 1))
    parts, start, size = [], 0, 0
    for i, item in enumerate(items):
        size += sum(size_and_time(file)[0] for file in item.files)
        if i + 1 - start == most or size >= SHARD_BYTES:
            parts.append((start, i + 1))
            start, size = i + 1, 0
    if start < len(items):
        parts.append((start, len(items)))
    return parts


def _kept(path: pathlib.Path, stamp: str) -> Written | None:
    """Returns what an earlier build wrote there, if it is whole and was made from the same."""
    try:
        record = json.loads(path.with_suffix(".json").read_text())
        if record.pop("stamp") == stamp and path.stat().st_size == record["num_bytes"]:
            return Written(**record | {"gaps": [Gap(*gap) for gap in record["gaps"]]})
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _stamp(encoder: Encoder, items: Sequence[Item], settings: str) -> str:
    digest = hashlib.sha256(settings.encode())
    for item in items:
        for value in (item.label, item.crop, *item.fields.items()):
            digest.update(_bytes(value))
        for file in (*item.files, *encoder.beside(item)):
            digest.update(repr((file, size_and_time(file))).encode())
    return digest.hexdigest()


def _bytes(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return repr((value.shape, value.dtype.str)).encode() + value.tobytes()
    if isinstance(value, tuple):
        return b"".join(map(_bytes, value))
    return repr(value).encode()


def size_and_time(file: str) -> tuple[int, int]:
    """Returns what changes when a file does, (0, 0) where there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
