"""Checkpoints: whole or not there, and a damaged one gives way to the one before."""

import dataclasses
import pathlib
import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from fer_jax.data.sources.source import Source
from fer_jax.errors import UserError
from fer_jax.runs.checkpoint import MANIFEST, _steps, _write_manifest, has_checkpoint, restore, save
from fer_jax.training import loop


def tree(value):
    noise = jax.random.normal(jax.random.key(int(value)), (300, 7))  # does not compress away
    return {"a": noise, "n": jnp.asarray(int(value), jnp.int32)}


@pytest.fixture
def saved(tmp_path):
    folder = epath.Path(tmp_path / "checkpoints")
    for step in (1, 2, 3):
        save(folder, step, tree(step), {"x": [0.1, step]}, keep=2)
    return folder


def restored(folder):
    """The tree and record of the newest whole checkpoint, and what is wrong with newer ones."""
    found = restore(folder, tree(0))
    assert found is not None
    return found


def damage(folder, step, how):
    files = [p for p in pathlib.Path(folder, str(step), "tree").glob("**/d/*") if p.is_file()]
    biggest = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(biggest.read_bytes())
    if how == "cut":
        biggest.write_bytes(bytes(content[: len(content) // 2]))
    elif how == "gone":
        biggest.unlink()
    else:
        content[len(content) // 2] ^= 0xFF
        biggest.write_bytes(bytes(content))


def test_the_newest_comes_back_bit_for_bit(saved):
    stored, record, problems = restored(saved)
    assert problems == []
    jax.tree.map(np.testing.assert_array_equal, stored, tree(3))
    assert record == {"x": [0.1, 3]}


@pytest.mark.parametrize("how", ["cut", "gone", "flipped"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(saved, how):
    damage(saved, 3, how)
    stored, _, problems = restored(saved)
    assert int(stored["n"]) == 2
    assert len(problems) == 1
    assert "checkpoint 3" in problems[0]
    assert "\n" not in problems[0]


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", '{"format": 2, "record": {}, "files": {"tree/x": 1}}'])
def test_a_damaged_manifest_is_a_damaged_checkpoint(text, saved):
    (pathlib.Path(saved) / "3" / "manifest.json").write_text(text)
    stored, _, problems = restored(saved)
    assert int(stored["n"]) == 2
    assert len(problems) == 1
    assert "checkpoint 3" in problems[0]


def test_when_all_are_damaged_it_says_what_to_do(saved):
    for step in (2, 3):
        damage(saved, step, "cut")
    with pytest.raises(
        UserError, match=f"every checkpoint .* is damaged .* delete the work directory {saved.parent} to"
    ):
        restored(saved)


def refused(*_, **__):
    raise PermissionError(13, "Permission denied")


def test_a_damaged_checkpoint_that_cannot_be_removed_is_said_in_one_line(saved, monkeypatch):
    damage(saved, 3, "cut")
    monkeypatch.setattr("shutil.rmtree", refused)  # a folder's permissions do not stop root
    with pytest.raises(UserError, match=f"cannot write {saved}: Permission denied; check the permissions"):
        restored(saved)
    assert (saved / "3").exists()


def test_a_checkpoint_that_cannot_be_read_now_is_not_taken_for_a_damaged_one(saved, monkeypatch):
    monkeypatch.setattr("hashlib.file_digest", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(UserError, match=f"cannot read {saved / '3'}: Input/output error"):
        restored(saved)
    assert (saved / "3" / MANIFEST).exists()


def test_a_checkpoint_of_another_version_is_not_taken_for_a_damaged_one(saved):
    manifest = saved / "3" / MANIFEST
    manifest.write_text(manifest.read_text().replace('"format": 2,', ""))
    with pytest.raises(UserError, match="written by another version of fer_jax"):
        restored(saved)
    assert manifest.exists()


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(saved, monkeypatch):
    assert has_checkpoint(saved)
    monkeypatch.setattr("os.listdir", refused)
    with pytest.raises(UserError, match=f"cannot read {saved}: Permission denied; check its permissions"):
        has_checkpoint(saved)


def test_a_save_that_could_not_be_read_does_not_count(saved):
    (saved / "3" / "tree" / "manifest.ocdbt").unlink()
    with pytest.raises(OSError, match="manifest.ocdbt"):
        _write_manifest(saved / "3", {})


def test_an_empty_folder_holds_no_checkpoint(tmp_path):
    assert restore(epath.Path(tmp_path / "none"), tree(0)) is None


def test_a_save_without_its_manifest_does_not_count_and_is_made_again(saved):
    (pathlib.Path(saved) / "3" / "manifest.json").unlink()
    stored, _, problems = restored(saved)
    assert problems == []
    assert int(stored["n"]) == 2
    save(saved, 3, tree(3), {}, keep=2)
    assert int(restored(saved)[0]["n"]) == 3


def test_only_the_newest_are_kept(saved):
    assert sorted(p.name for p in pathlib.Path(saved).iterdir()) == ["2", "3"]


def test_a_checkpoint_of_another_program_is_kept_and_said_so(saved):
    with pytest.raises(UserError, match="does not fit this program"):
        restore(saved, tree(0) | {"b": jnp.zeros(3)})
    assert (pathlib.Path(saved) / "3").exists()


def test_a_disk_that_fills_up_leaves_the_earlier_ones_and_no_stack_trace(saved, capfd):
    """A limit on the size of files stands in for a full disk."""
    ignored, limit = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limit[1]))
    try:
        with pytest.raises(UserError, match="could not write the checkpoint of step 4 .* make room"):
            save(saved, 4, tree(4), {}, keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert capfd.readouterr().err == ""
    assert _steps(saved) == [2, 3]  # what threads of Orbax may still write does not count


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tiny, tmp_path, capfd):
    config = tiny(eval_every_epochs=0.15)  # three checkpoints
    reference = loop.train(config, epath.Path(tmp_path / "reference"))
    workdir = epath.Path(tmp_path / "run")
    shutil.copytree(tmp_path / "reference", workdir)
    (workdir / "results.json").unlink()
    newest = max(int(p.name) for p in (workdir / "checkpoints").iterdir())
    damage(workdir / "checkpoints", newest, "cut")
    results = loop.train(config, workdir)
    said = capfd.readouterr()
    assert "using the one before it" in said.out
    assert "Traceback" not in said.err
    assert results["params_sha256"] == reference["params_sha256"]
    lines = [(workdir / "metrics.jsonl").read_text(), (tmp_path / "reference" / "metrics.jsonl").read_text()]
    assert lines[0] == lines[1]


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    return tmp_path_factory.mktemp("unfinished") / "run"


@pytest.mark.parametrize(
    "change",
    [
        lambda _: {"data_digest": "of other pictures"},
        lambda source: {"rows": source.rows[::-1]},
        lambda source: {"arrays": dict(source.arrays) | {"label": source.arrays["label"][::-1]}},
    ],
)
def test_a_run_is_not_resumed_on_other_data(change, tiny, unfinished, monkeypatch):
    """A data set that was prepared again with other pictures or labels is not what the run began with."""
    if not unfinished.exists():  # trained once for all of them, which leave it as it is
        loop.train(tiny(max_steps=2), epath.Path(unfinished))
        (unfinished / "results.json").unlink()
    before = {path: path.read_bytes() for path in (unfinished / "checkpoints").rglob("*") if path.is_file()}
    original = Source.select

    def select(self, rows):
        source = original(self, rows)
        return dataclasses.replace(source, **change(source))

    monkeypatch.setattr(Source, "select", select)
    with pytest.raises(UserError, match="trained on, or give another --workdir"):
        loop.train(tiny(max_steps=2), epath.Path(unfinished))
    assert before == {path: path.read_bytes() for path in (unfinished / "checkpoints").rglob("*") if path.is_file()}


def test_only_folders_named_by_a_step_are_checkpoints(tmp_path):
    for name in ("20", "3", "²", "٤", "9" * 30, "latest"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_text("{}")
    assert _steps(epath.Path(tmp_path)) == [3, 20]
