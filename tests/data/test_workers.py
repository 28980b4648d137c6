"""Processes that decode: the same pixels, no JAX in them, one line when one dies, and none left behind."""

import gc
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fer_jax.config.fields import check_config
from fer_jax.data.corrupt.occlusion import with_occluded_copies
from fer_jax.data.sources import workers
from fer_jax.data.sources.on_disk import RecordReader
from fer_jax.data.sources.source import load
from fer_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="hands descriptors to processes")


@pytest.fixture
def split(tiny):
    """A function that loads a split from disk, decoded by so many processes."""

    def make(count, method="baseline", name="test"):
        config = tiny(method)
        config.data.path, config.data.workers = "disk", count
        return load(config.data, name, training=False)

    return make


def processes(reader):
    pool = reader._workers
    taken = [pool._idle.get() for _ in range(pool.count)]
    for worker in taken:
        pool._idle.put(worker)
    return [worker._process for worker in taken]


@pytest.mark.parametrize("method", ["baseline", "fan"])
def test_batches_do_not_depend_on_who_decodes(method, split):
    alone, pair = split(0, method), split(2, method)
    rows = np.random.default_rng(0).integers(0, len(alone), (3, 40))
    ours, theirs = [(s.frames["frames"] if s.frames else s.arrays["image"]) for s in (pair, alone)]
    assert isinstance(ours.read, workers.WorkerReader)
    assert isinstance(theirs.read, RecordReader)
    for key in (rows, rows[0], np.arange(0), 3):
        np.testing.assert_array_equal(ours[key], theirs[key])


def test_copies_behind_objects_are_painted_over_what_workers_decode(split):
    rows = np.arange(0, 2 * len(split(0)), 7)
    ours, theirs = [with_occluded_copies(split(n), seed=3).arrays["image"][rows] for n in (2, 0)]
    np.testing.assert_array_equal(ours, theirs)


def test_more_pictures_than_the_shared_memory_holds(split, monkeypatch):
    pictures, plain = split(2).arrays["image"], split(0).arrays["image"]
    monkeypatch.setattr(workers, "MEMORY", 3 * plain[:1].nbytes)
    np.testing.assert_array_equal(pictures[:20], plain[:20])
    monkeypatch.setattr(workers, "MEMORY", plain[:1].nbytes - 1)  # then this process decodes
    np.testing.assert_array_equal(pictures[:20], plain[:20])


def test_all_readers_share_the_same_processes(split):
    one, two = split(2).arrays["image"].read, split(2).arrays["image"].read
    assert one._workers is two._workers
    assert len(processes(one)) == 2


@pytest.mark.skipif(not pathlib.Path("/proc/self/maps").exists(), reason="reads /proc")
def test_workers_do_not_load_jax(split):
    pictures = split(2).arrays["image"]
    pictures[:8]
    for process in processes(pictures.read):
        assert "jaxlib" not in pathlib.Path(f"/proc/{process.pid}/maps").read_text()


def test_what_a_worker_refuses_is_said_here(split, monkeypatch):
    pictures = split(2).arrays["image"]
    whole = pictures.read.pickled
    monkeypatch.setattr(pictures.read, "pickled", pickle.dumps(_other_shape(split(0).arrays["image"].read)))
    with pytest.raises(UserError, match="holds pictures of 64x64 and of 9x7 pixels"):
        pictures[0]
    monkeypatch.setattr(pictures.read, "pickled", whole)  # nobody keeps a reader that failed at once
    np.testing.assert_array_equal(pictures[:4], split(0).arrays["image"][:4])


def _other_shape(reader):
    reader.shape = (7, 9, 3)
    return reader


@pytest.fixture
def fresh(monkeypatch):
    """A worker that no other test has: it may come to harm."""
    pool = workers._Workers(1)
    monkeypatch.setattr(workers, "_workers", lambda count: pool)
    return pool


def test_a_reader_in_the_place_of_one_that_is_gone_reads_its_own(fresh, split, monkeypatch):
    monkeypatch.setattr(workers, "id", lambda _: 7, raising=False)  # as if memory were given out again
    expected = {name: split(0, name=name).arrays["image"][:5] for name in ("test", "train")}
    assert (expected["test"] != expected["train"]).any()
    keys = []
    for name in ("test", "train"):
        pictures = split(1, name=name).arrays["image"]
        np.testing.assert_array_equal(pictures[:5], expected[name])
        keys.append(pictures.read.key)
        del pictures
        gc.collect()
    worker = fresh._idle.get()
    worker._line.send((keys[0], np.arange(1), None))
    assert "KeyError" in worker._line.recv()  # the process has let go of the first


def test_a_worker_leaves_it_to_its_parent_to_end(fresh, split):
    pictures, expected = split(1).arrays["image"], split(0).arrays["image"][:4]
    pictures[:4]
    (process,) = processes(pictures.read)
    for number in (signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        np.testing.assert_array_equal(pictures[:4], expected)
    assert os.getsid(process.pid) == process.pid


class Unclear:
    """A process of which nothing can be said: it lives on, or a signal without a name ended it."""

    def __init__(self, status):
        self.status = status

    def wait(self, seconds):
        if self.status is None:
            raise subprocess.TimeoutExpired("worker", seconds)
        return self.status


@pytest.mark.parametrize("status", [None, -40])
def test_a_worker_that_no_longer_answers_gives_one_line(status, fresh, split):
    pictures = split(1).arrays["image"]
    worker = fresh._idle.get()
    worker._process = Unclear(status)
    worker._line.close()
    fresh._idle.put(worker)
    with pytest.raises(UserError, match="^a process that decodes pictures stopped answering; start the same command"):
        pictures[:4]


def test_a_worker_that_is_killed_gives_one_line(fresh, split):
    pictures = split(1).arrays["image"]
    pictures[:4]
    (process,) = processes(pictures.read)
    process.send_signal(signal.SIGKILL)
    with pytest.raises(UserError, match="a process that decodes pictures ended, killed by SIGKILL; start the same"):
        pictures[:4]


def test_workers_that_cannot_be_started(monkeypatch):
    def full():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(workers, "_Worker", full)
    with pytest.raises(UserError, match=r"decode pictures \(Too many open files\): lower config.data.workers=9$"):
        workers._Workers(9)


def test_workers_end_with_a_parent_that_is_killed():
    script = (
        "import sys, time\nfrom fer_jax.data.sources import workers\n"
        "pool = workers._Workers(2)\n"
        "print(*[pool._idle.get()._process.pid for _ in range(2)], flush=True)\n"
        "time.sleep(300)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    end = time.monotonic() + 60
    while any(map(_lives, pids)):
        assert time.monotonic() < end, "a worker outlived its parent"
        time.sleep(0.05)


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = pathlib.Path(f"/proc/{pid}/stat")
    with_state = stat.read_text() if stat.exists() else ""
    return ") Z " not in with_state  # ended, and nobody has asked how


def test_workers_for_pixels_in_memory_are_refused(tiny):
    config = tiny()
    config.data.workers, config.data.path = 2, "stream"
    with pytest.raises(
        UserError, match="config.data.workers=2 decode what stays on disk, and config.data.path='stream'"
    ):
        check_config(config)
