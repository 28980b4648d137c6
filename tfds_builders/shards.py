"""Writes splits as array_record files in several processes, so that a build that was killed can resume.

A shard is a run of examples in order. It is written under a temporary name, and is complete once a small record lies
beside it: the names, sizes and times of its source files and how they were read. The next build keeps each shard whose
record still matches, and writes the others.
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
from typing import Any

import cv2
import numpy as np
from absl import logging
from array_record.python import array_record_module  # pyright: ignore
from tqdm import tqdm

from fer_jax.errors import UserError, first_line
from fer_jax.faces.pictures import BadPicture
from fer_jax.parsing import parse_json
from tfds_builders.listing import Item
from tfds_builders.problems import Gap

SHARD_BYTES = 128 << 20
SHARD_EXAMPLES = 4096
PARTS = 32  # shards of a split with enough examples, for as many processes
FEW = 256  # examples that one process writes before a second one could start


@dataclasses.dataclass(frozen=True)
class Written:
    """The record of a shard.

    Attributes:
        labels: of the examples in it.
        num_bytes: its size.
        gaps: examples that could not be read, (where, what).
        notes: lines about pictures that were converted.
        digests: of the stored pictures of each item, '' for gaps and for clips without a face.
    """

    labels: list[int]
    num_bytes: int
    gaps: list[Gap]
    notes: list[str]
    digests: list[str]


Shards = list[tuple[pathlib.Path, Written]]


def write_splits(
    encoder: Any, splits: Mapping[str, Sequence[Item]], folder: pathlib.Path, jobs: int, settings: str
) -> dict[str, Shards]:
    """Writes the examples of all splits; returns the shards of each in order, also those without an example.

    Args:
        encoder: the builder.
        splits: the examples.
        folder: of the shards until all are complete; created if missing.
        jobs: number of processes; 0 is one for each core.
        settings: everything else that decides what is written; shards of other settings are written again.
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
            if (kept := _kept(path, _stamp(part, settings))) is not None:
                done[path] = kept
                bar.update(len(part))
        waiting = [(path, part) for path, part in every if path not in done]
        for path, written, count in _written(encoder, waiting, jobs or _cores(), settings):
            done[path] = written
            bar.update(count)
    return {split: [(path, done[path]) for path, _ in some] for split, some in tasks.items()}


def _written(
    encoder: Any, waiting: Sequence[tuple[pathlib.Path, Sequence[Item]]], jobs: int, settings: str
) -> Iterator[tuple[pathlib.Path, Written, int]]:
    """Yields (path, record, number of examples) of each shard when it is complete, in any order."""
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
        with _without_interrupts():  # the workers start here, and only the build handles Ctrl-C
            futures = {pool.submit(_write_in_worker, path, part, settings): (path, part) for path, part in waiting}
        try:
            for future in concurrent.futures.as_completed(futures):
                path, part = futures[future]
                yield path, future.result(), len(part)
        except BaseException:  # also Ctrl-C: complete shards stay, no further one is started
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Blocks Ctrl-C inside the `with` block, and in the processes that start in it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def write_shard(encoder: Any, path: pathlib.Path, items: Sequence[Item], settings: str) -> Written:
    """Writes one file of examples and its record."""
    temporary = path.with_suffix(f".{os.getpid()}.writing")  # a worker of a killed build may still run
    labels, gaps, notes, digests = [], [], [], []
    writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
    try:
        for item in items:
            try:
                example, found = encoder.example(item)
                digest, record = _digest(example), encoder.info.features.serialize_example(example)
            except MemoryError:  # no fault of the file
                raise
            except Exception as error:  # whatever one file leads to, the others are still read
                told = f"cannot be stored ({first_line(error)}): replace it"
                if isinstance(error, BadPicture | UserError):
                    told = str(error) if isinstance(error, BadPicture) else f"cannot be used: {error}"
                gaps.append(Gap(item.name, told))
                digests.append("")
                continue
            notes += [f"{item.name}: {note}" for note in found]
            writer.write(record)
            labels.append(int(item.label))
            digests.append(digest)
    finally:
        writer.close()
    written = Written(labels, temporary.stat().st_size, gaps, notes, digests)
    os.replace(temporary, path)
    record = dataclasses.asdict(written) | {"stamp": _stamp(items, settings)}
    partial = path.with_suffix(f".{os.getpid()}.json")
    partial.write_text(json.dumps(record))
    os.replace(partial, path.with_suffix(".json"))
    return written


def _digest(example: Mapping[str, Any]) -> str:
    """Returns what examples with the same stored pictures share."""
    if not np.any(example.get("frame_mask", True)):
        return ""
    files = example["frames"] if "frames" in example else [example["image"]]
    digest = hashlib.blake2b(digest_size=12)
    for file in files:
        digest.update(file.getvalue())
    return digest.hexdigest()


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_ENCODER: Any = None  # the builder in a worker process, which unpickles it once


def _start_worker(pickled: bytes) -> None:
    """Sets up a worker process: one thread for OpenCV; it exits if the build is killed."""
    global _ENCODER
    logging.set_verbosity(logging.ERROR)  # as the command does: TFDS warns of every builder with options
    _ENCODER = pickle.loads(pickled)
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _write_in_worker(path: pathlib.Path, items: Sequence[Item], settings: str) -> Written:
    return write_shard(_ENCODER, path, items, settings)


def _parts(items: Sequence[Item], weight: int) -> list[tuple[int, int]]:
    """Divides the examples into runs, by their number and the bytes of their files.

    The runs depend only on the examples, so that a build can resume with another number of processes.
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
    """Returns the record of a shard of an earlier build if it is complete, without gaps and of the same sources.

    What could not be read may have failed for a passing reason, such as a network disk: it is read again.
    """
    try:
        record = parse_json(path.with_suffix(".json").read_bytes())
        if record.pop("stamp") == stamp and path.stat().st_size == record["num_bytes"] and not record["gaps"]:
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
            digest.update(repr((file, size_and_time(file))).encode())
    return digest.hexdigest()


def _bytes(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return repr((value.shape, value.dtype.str)).encode() + value.tobytes()
    if isinstance(value, tuple):
        return b"".join(map(_bytes, value))
    return repr(value).encode()


def size_and_time(file: str) -> tuple[int, int]:
    """Returns the size and time of a file, (0, 0) if there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
