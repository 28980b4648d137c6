"""Splits in RAM: what is held out, what is left out, and the decoded copy on disk."""

import dataclasses
import hashlib
import json
import os

import numpy as np
import pytest

from fer_jax.data.sources.source import Source, load, split_off
from fer_jax.data.targets.labeled import attach_targets
from fer_jax.errors import UserError
from fer_jax.training.setup import make_setup


def source(subject=None, n=200):
    rng = np.random.default_rng(0)
    label = rng.choice(4, n, p=[0.6, 0.2, 0.15, 0.05]).astype(np.int32)
    arrays = {
        "label": label,
        "index": np.arange(n, dtype=np.int32),
        "image": np.zeros((n, 2, 2, 1), np.uint8),
    }
    if subject is not None:
        arrays["subject"] = subject
    return Source("x", "train", ("a", "b", "c", "d"), arrays, np.arange(n))


def test_the_held_out_part_is_stratified():
    kept, held = split_off(source(), 0.25, seed=0)
    assert len(kept) + len(held) == 200
    np.testing.assert_allclose(held.class_counts() / 0.25, source().class_counts(), atol=2.1)
    assert kept.arrays["index"].tolist() == list(range(len(kept)))


def test_people_are_held_out_whole_where_they_are_known():
    kept, held = split_off(source(subject=np.repeat(np.arange(20), 10)), 0.2, seed=0)
    assert not set(kept.arrays["subject"]) & set(held.arrays["subject"])
    assert len(held) == 40


def test_images_of_one_clip_are_held_out_together():
    images = source(n=600)
    clip = np.repeat(np.arange(150), 4)
    label = images.arrays["label"][::4].repeat(4)
    label[::4] = 0  # the first image of each clip is neutral, say
    images = dataclasses.replace(images, rows=clip, arrays={**images.arrays, "label": label})
    kept, held = split_off(images, 0.2, seed=0)
    assert not set(kept.rows.tolist()) & set(held.rows.tolist())
    assert set(np.bincount(held.rows)[np.unique(held.rows)].tolist()) == {4}
    clips = np.bincount(label[3::4], minlength=4)
    np.testing.assert_array_equal(np.bincount(held.arrays["label"][3::4], minlength=4), np.round(0.2 * clips))


def test_what_is_held_out_of_images_never_changed():
    """The rows that were held out before clips were thought of: finished runs were selected on these."""
    _, held = split_off(source(n=40), 0.2, seed=0)
    rng, label, expected = np.random.default_rng(0), source(n=40).arrays["label"], []
    for c in range(4):
        rows = rng.permutation(np.flatnonzero(label == c))
        expected += rows[: round(0.2 * len(rows))].tolist()
    assert held.rows.tolist() == sorted(expected)


def test_nothing_to_hold_out_is_refused():
    with pytest.raises(UserError, match="nothing to validate on"):
        split_off(source(), 0.0, seed=0)


def test_votes_become_targets_and_rejected_rows_leave():
    votes = np.array([[4, 0, 0, 4, 1, 0, 0, 0, 1, 0], [9, 1, 0, 0, 0, 0, 0, 0, 0, 0], [0] * 8 + [10, 0]])
    arrays = {"votes": votes, "image": np.zeros((3, 1, 1, 1))}
    majority, classes = attach_targets(arrays, (), rule="majority", votes="votes", training=True)
    assert len(classes) == 8
    assert majority["label"].tolist() == [0]
    assert len(majority["image"]) == 1
    soft, _ = attach_targets(arrays, (), rule="cross_entropy", votes="votes", training=True)
    np.testing.assert_allclose(soft["target"][0], [0.5, 0, 0, 0.5, 0, 0, 0, 0])
    scored, _ = attach_targets(arrays, (), rule="cross_entropy", votes="votes", training=False)
    assert scored["label"].tolist() == [0]
    np.testing.assert_allclose(scored["vote_target"].sum(-1), 1)


@pytest.mark.parametrize("damage", ["other records", "cut", "a bit", "gone", "cut stamp"])
def test_the_decoded_copy_is_the_data_set_and_is_made_anew_when_damaged(damage, tiny):
    data = tiny().data
    first = load(data, "test", training=False)
    again = load(data, "test", training=False)
    for name, values in first.arrays.items():
        np.testing.assert_array_equal(values, again.arrays[name])
    from fer_jax.data.sources.source import prepared_builder

    (stamp,) = prepared_builder(data).data_path.glob("decoded/test/stamp.json")
    images = stamp.parent / "image.npy"
    if damage == "other records":
        stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"records": {"other": 1}}))
    elif damage == "cut":
        images.write_bytes(images.read_bytes()[:1000])
    elif damage == "a bit":
        status, flipped = images.stat(), bytearray(images.read_bytes())
        flipped[5000] ^= 1
        images.write_bytes(flipped)
        os.utime(images, (status.mtime, status.mtime))
    elif damage == "gone":
        images.unlink()
    else:
        stamp.write_text(stamp.read_text()[:10])
    fresh = load(data, "test", training=False)
    np.testing.assert_array_equal(first.arrays["image"], fresh.arrays["image"])
    assert json.loads(stamp.read_text())["records"].keys() != {"other"}
    assert json.loads(stamp.read_text())["arrays"] == {"image": hashlib.sha256(images.read_bytes()).hexdigest()}


def test_held_out_people_are_scored_as_the_test_split_is(tiny):
    """Whatever rule trains, the label of a held-out example is the majority's."""
    config = tiny()
    config.data.target = "probability"
    setup = make_setup(config)
    scored = load(config.data, "train", training=False)
    rows = {row: place for place, row in enumerate(scored.rows.tolist())}
    same = [rows[row] for row in setup.validation.rows.tolist()]
    np.testing.assert_array_equal(setup.validation.arrays["target"], scored.arrays["target"][same])
    assert not set(setup.validation.rows.tolist()) & set(setup.train.rows.tolist())
    assert set(setup.train.arrays["target"].max(-1).tolist()) != {1.0}


def test_a_damaged_data_set_says_what_to_do(tiny, tmp_path):
    data = tiny().data
    data.data_dir = str(tmp_path)
    load(data, "test", training=False)
    import shutil

    from fer_jax.data.sources.source import prepared_builder

    folder = prepared_builder(data).data_path
    shutil.rmtree(folder / "decoded")
    (record,) = folder.glob("*test*record*")
    record.write_bytes(record.read_bytes()[: record.stat().length // 3])
    with pytest.raises(UserError, match="cannot be read .* delete that folder and prepare it again") as caught:
        load(data, "test", training=False)
    assert "\n" not in str(caught.value)
