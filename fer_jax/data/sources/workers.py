"""Processes that read and decode pictures for this one, and hand the pixels over through shared memory.

A worker is a plain Python process with a connection and a piece of memory that both see; it never loads JAX. It ends
when its connection does, so it cannot outlive its parent, however that ends. A picture is the same bytes whoever
decodes it, so the number of workers changes nothing but the speed.
"""

from __future__ import annotations

import concurrent.futures
import functools
import mmap
import multiprocessing.connection
import os
import pathlib
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import uuid
import weakref
from typing import Any

import numpy as np

from fer_jax.data.sources.on_disk import PART, LazyPictures, RecordReader
from fer_jax.errors import UserError, first_line

MEMORY = 64 << 20  # bytes that a worker and its parent share; pages that are never touched cost nothing
GRACE = 10.0  # seconds for a process to end whose connection did
ROOT = pathlib.Path(__file__).resolve().parents[3]


class WorkerReader:
    """Reads as `reader` does, by `count` processes that all readers of this process share."""

    def __init__(self, reader: RecordReader, count: int):
        self._reader, self._workers = reader, _workers(count)
        self.key = uuid.uuid4().hex  # the workers outlive readers, and another may get the place in memory of this one
        self.shape, self.pickled = reader.shape, pickle.dumps(reader)

    def __call__(self, places: np.ndarray) -> np.ndarray:
        pixels = np.empty((len(places), *self.shape), np.uint8)
        size = int(np.prod(self.shape))
        if size > MEMORY:  # a picture of eight thousand pixels
            return self._reader(places)
        most = min(PART, MEMORY // size)
        # Rows of one example go to one worker: it reads the example once.
        order = np.argsort(self._reader.examples(places), kind="stable")
        parts = [order[begin : begin + most] for begin in range(0, len(order), self._part(len(order), most))]

        def fill(part: np.ndarray) -> None:
            pixels[part] = self._workers.read(self, places[part])

        list(self._workers.threads.map(fill, parts))
        return pixels

    def _part(self, rows: int, most: int) -> int:
        """Rows that a worker is given at once: so many that all have something to do, and no more than `most`."""
        return max(1, min(most, -(-rows // self._workers.count)))


def decoded_by_workers(pictures: LazyPictures, count: int) -> LazyPictures:
    """Returns the same pictures, decoded by `count` processes."""
    assert isinstance(pictures.read, RecordReader), "pictures as they are stored"
    return LazyPictures(WorkerReader(pictures.read, count), pictures.shape[1:], pictures.place)


class _Worker:
    """One process. Only one thread talks to it at a time."""

    def __init__(self) -> None:
        ours, theirs = multiprocessing.connection.Pipe()
        descriptor = os.memfd_create("pixels") if hasattr(os, "memfd_create") else _unnamed_file()
        os.ftruncate(descriptor, MEMORY)
        command = [sys.executable, "-m", "fer_jax.data.sources.workers", str(theirs.fileno()), str(descriptor)]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            command,
            pass_fds=(theirs.fileno(), descriptor),
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._memory = mmap.mmap(descriptor, MEMORY)
        os.close(descriptor)
        self._line = ours
        self._known: weakref.WeakSet[WorkerReader] = weakref.WeakSet()  # those that the process has, and that live
        weakref.finalize(self, _end, ours, self._process)

    def read(self, reader: WorkerReader, places: np.ndarray) -> np.ndarray:
        """Returns the pictures as a view of the shared memory: valid until the next call."""
        shape, new = reader.shape, None
        if reader not in self._known:
            new = (reader.pickled, [known.key for known in self._known])
        try:
            self._line.send((reader.key, places, new))
            failure = self._line.recv()
        except (OSError, EOFError) as error:
            raise UserError(
                f"a process that decodes pictures {self._ending()}; start the same command again (it goes on from the "
                "last checkpoint), with config.data.workers=0 if memory is short"
            ) from error
        if failure:
            raise UserError(failure)
        self._known.add(reader)
        return np.frombuffer(self._memory, np.uint8, len(places) * int(np.prod(shape))).reshape(len(places), *shape)

    def _ending(self) -> str:
        """Says how the process came to its end."""
        try:
            status = self._process.wait(GRACE)
            return f"ended, killed by {signal.Signals(-status).name}" if status < 0 else f"ended, with status {status}"
        except (subprocess.TimeoutExpired, ValueError):  # it lives, or the signal has no name
            return "stopped answering"


class _Workers:
    """The workers, of whom each call takes one that is idle."""

    def __init__(self, count: int):
        self.count = count
        self.threads = concurrent.futures.ThreadPoolExecutor(count, "waits for workers")
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        try:
            for _ in range(count):
                self._idle.put(_Worker())
        except OSError as error:  # this user may have no more processes, or no more open files
            raise UserError(
                f"cannot start {count} processes that decode pictures ({error.strerror or error}): "
                f"lower config.data.workers={count}"
            ) from error

    def read(self, reader: WorkerReader, places: np.ndarray) -> np.ndarray:
        worker = self._idle.get()
        try:
            return worker.read(reader, places).copy()
        finally:
            self._idle.put(worker)


@functools.cache
def _workers(count: int) -> _Workers:
    return _Workers(count)


def _end(line: Any, process: subprocess.Popen[bytes]) -> None:
    line.close()  # the worker sees the end of the connection
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:  # it waits for a disk that does not answer
        process.kill()


def _unnamed_file() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _serve(line: Any, memory: mmap.mmap) -> None:
    """The life of a worker: until the connection ends, reads the places that it is asked for into the memory."""
    readers: dict[str, RecordReader] = {}
    while True:
        try:
            key, places, new = line.recv()
        except (EOFError, OSError):
            return
        try:
            if new is not None:
                pickled, alive = new  # the others are gone
                readers = {known: readers[known] for known in alive} | {key: pickle.loads(pickled)}
            pixels = readers[key].read(places, parts=1)
            np.frombuffer(memory, np.uint8, pixels.size)[:] = pixels.ravel()
            failure = ""
        except UserError as error:
            failure = str(error)
        except Exception as error:
            failure = f"a process that decodes pictures failed ({first_line(error)})"
        try:
            line.send(failure)
        except OSError:
            return


if __name__ == "__main__":
    import cv2

    # Ctrl-C, and a job that is asked to end, reach every process: the parent decides, and still reads to save.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    _serve(multiprocessing.connection.Connection(int(sys.argv[1])), mmap.mmap(int(sys.argv[2]), MEMORY))
