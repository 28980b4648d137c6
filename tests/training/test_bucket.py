"""A work directory in a bucket: nothing is appended, renamed or locked there, and nothing lands on the local disk.

Orbax reaches buckets through its own library, for which no bucket can be had here: a stand-in takes its place, and
stores through the same paths. Everything else is the real thing.
"""

import pickle
from typing import ClassVar

import fsspec
import jax
import numpy as np
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from fer_jax.errors import UserError
from fer_jax.evaluation.metrics import classification_metrics
from fer_jax.report import Predictions, write_report
from fer_jax.runs import checkpoint
from fer_jax.runs.workdir import stored_config
from fer_jax.storage import absolute, local, reachable, write_whole
from fer_jax.training import loop
from fer_jax.training.log import JsonLines, read_lines


class Bucket(MemoryFileSystem):
    """Objects under s3:// that can be put, read, listed and deleted, and nothing else."""

    protocol = "s3"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(str(path).removeprefix("s3://"))

    def open(self, path, mode="rb", **options):
        if "a" in mode or "+" in mode:
            raise NotImplementedError("objects cannot be appended to")
        return super().open(path, mode, **options)

    def mv(self, *_, **__):
        raise NotImplementedError("objects cannot be renamed")

    rename = move = mv


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """The path of a bucket, in a process whose own folder must stay empty."""
    Bucket.store.clear()
    Bucket.clear_instance_cache()
    fsspec.register_implementation("s3", Bucket, clobber=True)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield epath.Path("s3://faces/runs")
    assert list(here.iterdir()) == []


def test_a_bucket_that_cannot_be_had_is_refused_in_one_line(bucket, monkeypatch):
    assert reachable("s3://faces/new", "--workdir") == epath.Path("s3://faces/new")
    with pytest.raises(UserError, match="--workdir=gcs://faces: 'gcs://' is not a known storage: give a folder"):
        reachable("gcs://faces", "--workdir")
    with pytest.raises(UserError, match="config.data.data_dir='http://a/b' must be on this machine"):
        local("http://a/b", "config.data.data_dir")
    for error, says in (
        (ImportError("Please install s3fs"), "needs a package that is not installed: pip install s3fs"),
        (PermissionError("no credentials"), r"cannot be reached \(PermissionError: no credentials\)"),
    ):
        monkeypatch.setattr(Bucket, "exists", lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(UserError, match=f"--out=s3://faces {says}"):
            reachable("s3://faces", "--out")


class Pickles:
    """Stands in for Orbax."""

    def save(self, path, args):
        assert str(path).startswith("s3://faces/")
        path.mkdir(parents=True, exist_ok=True)
        (path / "manifest.ocdbt").write_bytes(pickle.dumps(jax.device_get(args.item)))

    def restore(self, path, args):
        tree = pickle.loads((path / "manifest.ocdbt").read_bytes())
        return jax.device_put(tree, jax.tree.leaves(args.item)[0].sharding)


def test_a_run_lives_in_a_bucket_and_goes_on_there(tiny, bucket, tmp_path, monkeypatch):
    reference = epath.Path(tmp_path / "reference")
    config = tiny(eval_every_epochs=0.15)  # every second step
    expected = loop.train(config, reference)
    monkeypatch.setattr(checkpoint, "_orbax", Pickles)
    original, saves = checkpoint.save, []

    def stop_after_a_save(folder, step, *rest):
        original(folder, step, *rest)
        saves.append(step)
        raise KeyboardInterrupt

    workdir = bucket / "baseline"
    monkeypatch.setattr(checkpoint, "save", stop_after_a_save)
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, workdir)
    assert max(line["step"] for line in read_lines(workdir / "metrics.jsonl")) == saves[0] < 6
    monkeypatch.setattr(checkpoint, "save", original)
    results = loop.train(config, workdir)
    assert results["params_sha256"] == expected["params_sha256"]
    assert (workdir / "metrics.jsonl").read_text() == (reference / "metrics.jsonl").read_text()
    assert stored_config(workdir).train.max_steps == 6
    assert loop.train(config, workdir)["accuracy"] == expected["accuracy"]  # finished
    other = tiny(max_steps=9)
    with pytest.raises(UserError, match="work directory s3://faces/runs/baseline belongs to another config"):
        loop.train(other, workdir)


def test_a_report_is_written_into_a_bucket(bucket):
    logits = np.array([[3, 0], [0, 5], [0, 9]], np.float32)
    predictions = Predictions(logits, np.array([0, 0, 1]), np.zeros((3, 8, 8, 3), np.uint8))
    results = classification_metrics(logits, predictions.labels, ["calm", "glad"], bootstrap=0)
    page = write_report(bucket / "report", results=results, history=[], predictions=predictions)
    assert str(page) == "s3://faces/runs/report/index.html"
    assert "glad" in page.read_text()


def test_lines_are_kept_until_they_are_stored_whole(bucket):
    log = JsonLines(bucket / "m.jsonl")
    log.append({"step": 1})
    assert read_lines(bucket / "m.jsonl") == []
    log.flush()
    log.append({"step": 2})
    log.flush()
    assert [line["step"] for line in read_lines(bucket / "m.jsonl")] == [1, 2]
    again = JsonLines(bucket / "m.jsonl")
    again.rewind(1)
    again.append({"step": 3})
    again.flush()
    assert [line["step"] for line in read_lines(bucket / "m.jsonl")] == [1, 3]


def test_the_absolute_path_of_a_bucket_is_itself(bucket):
    assert str(absolute(bucket)) == "s3://faces/runs"
    assert absolute(epath.Path("runs")).is_absolute()


def test_what_a_link_points_to_is_written_and_the_link_stays(tmp_path, monkeypatch):
    """As root `--out=/dev/stdout` would otherwise replace what every process of the machine writes to."""
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    link.symlink_to(real)
    for text in ("whole", "again"):  # there is no file the first time
        write_whole(epath.Path(link), text)
        assert link.is_symlink()
        assert real.read_text() == text
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_whole(link, "cut")
    assert real.read_text() == "again"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "real.json"]
