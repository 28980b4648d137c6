"""Checkpoints: whole or not there, and a damaged one gives way to the one before."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from fer_jax.errors import UserError
from fer_jax.training import loop
from fer_jax.training.checkpoint import Checkpoint, Checkpoints


def tree(value):
    noise = jax.random.normal(jax.random.key(int(value)), (300, 7))  # does not compress away
    return {"a": noise, "n": jnp.asarray(int(value), jnp.int32)}


@pytest.fixture
def saved(tmp_path):
    folder = epath.Path(tmp_path / "checkpoints")
    checkpoints = Checkpoints(folder, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, Checkpoint(tree(step), tree(10 * step), {"x": [0.1, step]}))
    checkpoints.close()
    return folder


def restore(folder):
    checkpoints = Checkpoints(folder, keep=2)
    try:
        return checkpoints.restore(tree(0), tree(0))
    finally:
        checkpoints.close()


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
    stored, problems = restore(saved)
    assert problems == []
    assert stored is not None
    jax.tree.map(np.testing.assert_array_equal, stored.state, tree(3))
    jax.tree.map(np.testing.assert_array_equal, stored.best, tree(30))
    assert stored.record == {"x": [0.1, 3]}


@pytest.mark.parametrize("how", ["cut", "gone", "flipped"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(saved, how):
    damage(saved, 3, how)
    stored, problems = restore(saved)
    assert stored is not None
    assert int(stored.state["n"]) == 2
    assert len(problems) == 1
    assert "checkpoint 3" in problems[0]
    assert "\n" not in problems[0]


def test_when_all_are_damaged_it_says_what_to_do(saved):
    for step in (2, 3):
        damage(saved, step, "cut")
    with pytest.raises(UserError, match="no checkpoint .* is whole .* delete the work directory"):
        restore(saved)


def test_an_empty_folder_holds_no_checkpoint(tmp_path):
    assert restore(epath.Path(tmp_path / "none")) == (None, [])


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tiny, tmp_path, capsys):
    reference = loop.train(tiny("fdrl", max_steps=12), epath.Path(tmp_path / "reference"))
    workdir = epath.Path(tmp_path / "run")
    loop.train(tiny("fdrl", max_steps=12), workdir)
    (workdir / "results.json").unlink()
    newest = max(int(p.name) for p in (workdir / "checkpoints").iterdir())
    damage(workdir / "checkpoints", newest, "cut")
    results = loop.train(tiny("fdrl", max_steps=12), workdir)
    assert "the one before is used" in capsys.readouterr().out
    assert results["params_sha256"] == reference["params_sha256"]
    lines = [(workdir / "metrics.jsonl").read_text(), (tmp_path / "reference" / "metrics.jsonl").read_text()]
    assert lines[0] == lines[1]
