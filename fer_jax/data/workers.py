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
import weakref
from typing import Any

import numpy as np

from fer_jax.data.on_disk import PART, LazyPictures, RecordReader
from fer_jax.errors import UserError, first_line

MEMORY = 64 << 20  # bytes that a worker and its parent share; pages that are never touched cost nothing
ROOT = pathlib.Path(__file__).resolve().parents[2]


class WorkerReader:
    """Reads as `reader` does, by `count` processes that all readers of this process share."""

    def __init__(self, reader: RecordReader, count: int):
        self._reader, self._workers = reader, _workers(count)
        self._pickled = pickle.dumps(reader)

    def __call__(self, places: np.ndarray) -> np.ndarray:
        pixels = np.empty((len(places), *self._reader.shape), np.uint8)
        size = int(np.prod(self._reader.shape))
        if size > MEMORY:  # a picture of eight thousand pixels
            return self._reader(places)
        most = min(PART, MEMORY // size)
        # Rows of one example go to one worker: it reads the example once.
        order = np.argsort(self._reader.examples(places), kind="stable")
        parts = [order[begin : begin + most] for begin in range(0, len(order), self._part(len(order), most))]

        def fill(part: np.ndarray) -> None:
            pixels[part] = self._workers.read(id(self), self._pickled, places[part], self._reader.shape)

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
        command = [sys.executable, "-m", "fer_jax.data.workers", str(theirs.fileno()), str(descriptor)]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            command,
            pass_fds=(theirs.fileno(), descriptor),
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._memory = mmap.mmap(descriptor, MEMORY)
        os.close(descriptor)
        self._line, self._known = ours, set()
        weakref.finalize(self, _end, ours, self._process)

    def read(self, key: int, reader: bytes, places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the pictures as a view of the shared memory: valid until the next call."""
        try:
            self._line.send((key, places, None if key in self._known else reader))
            self._known.add(key)
            failure = self._line.recv()
        except (OSError, EOFError) as error:
            status = self._process.wait(10)
            how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
            raise UserError(
                f"a process that decodes pictures ended, {how}; start the same command again (it goes on from the "
                "last checkpoint), with config.data.workers=0 if memory is short"
            ) from error
        if failure:
            raise UserError(failure)
        return np.frombuffer(self._memory, np.uint8, len(places) * int(np.prod(shape))).reshape(len(places), *shape)


class _Workers:
    """The workers, of whom each call takes one that is idle."""

    def __init__(self, count: int):
        self.count = count
        self.threads = concurrent.futures.ThreadPoolExecutor(count, "waits for workers")
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(_Worker())

    def read(self, key: int, reader: bytes, places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        worker = self._idle.get()
        try:
            return worker.read(key, reader, places, shape).copy()
        finally:
            self._idle.put(worker)


@functools.cache
def _workers(count: int) -> _Workers:
    return _Workers(count)


def _end(line: Any, process: subprocess.Popen[bytes]) -> None:
    line.close()  # the worker sees the end of the connection
    process.wait()


def _unnamed_file() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _serve(line: Any, memory: mmap.mmap) -> None:
    """The life of a worker: until the connection ends, reads the places that it is asked for into the memory."""
    readers: dict[int, RecordReader] = {}
    while True:
        try:
            key, places, reader = line.recv()
        except (EOFError, OSError):
            return
        try:
            if reader is not None:
                readers[key] = pickle.loads(reader)
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

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    cv2.setNumThreads(1)
    _serve(multiprocessing.connection.Connection(int(sys.argv[1])), mmap.mmap(int(sys.argv[2]), MEMORY))
