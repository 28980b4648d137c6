"""Occluded copies: two banks with nothing in common, sizes and places of the protocol, and nothing that leaks."""

import dataclasses

import numpy as np
import pytest

from fer_jax.data.corrupt.occlusion import BANKS, behind_test_objects, paint, place, with_occluded_copies
from fer_jax.data.sources.source import Source
from fer_jax.errors import UserError
from fer_jax.training.setup import make_setup

N = 60


def source(channels=3, size=64, rows=None, **more):
    rng = np.random.default_rng(0)
    rows = np.arange(N) if rows is None else rows
    image = rng.integers(0, 256, (N, size, size, channels)).astype(np.uint8)[rows]
    marks = rng.uniform(0.25 * size, 0.75 * size, (N, 68, 2)).astype(np.float32)[rows]
    label = rng.integers(0, 7, N).astype(np.int32)[rows]
    arrays = {"image": image, "landmarks": marks, "label": label, "index": np.arange(len(rows), dtype=np.int32)}
    return Source("x", "train", tuple("abcdefg"), arrays | more, rows)


def test_the_banks_have_no_kind_in_common():
    assert not set(BANKS["train"]) & set(BANKS["test"])
    train, test = (place(np.arange(400), (64, 64), bank, seed=0) for bank in ("train", "test"))
    assert len(set(train.kind.tolist())) == len(BANKS["train"])
    assert len(set(test.kind.tolist())) == len(BANKS["test"])
    assert not set(train.kind.tolist()) & set(test.kind.tolist())


@pytest.mark.parametrize("size", [48, 224])
def test_sizes_and_places_are_the_protocols(size):
    drawn = place(np.arange(500), (size, 2 * size), "train", seed=3)
    sides = 2 * drawn.half * 224 / (2 * size)
    assert sides.min() >= 96
    assert sides.max() <= 128
    assert sides.max() - sides.min() > 30
    for place_in_side in (drawn.x / (2 * size), drawn.y / size):
        assert place_in_side.min() >= 0.1
        assert place_in_side.max() <= 0.9
        np.testing.assert_allclose(place_in_side.mean(), 0.5, atol=0.03)
        np.testing.assert_allclose(place_in_side.std(), 0.8 / 12**0.5, rtol=0.08)  # uniform


def test_a_doubled_set_has_every_image_twice():
    original = source(subject=np.arange(N))
    doubled = with_occluded_copies(original, seed=0)
    assert len(doubled) == 2 * N
    assert doubled.arrays["index"].tolist() == list(range(2 * N))
    for name in ("label", "landmarks", "subject"):
        np.testing.assert_array_equal(doubled.arrays[name][N:], original.arrays[name])
    np.testing.assert_array_equal(doubled.arrays["image"][:N], original.arrays["image"])
    changed = (doubled.arrays["image"][N:] != original.arrays["image"]).any(axis=(1, 2, 3))
    assert changed.all()
    assert "occlusion" not in doubled.arrays  # training is not told
    told = with_occluded_copies(original, seed=0, masks=True).arrays["occlusion"]
    assert not told[:N].any()
    differs = (doubled.arrays["image"][N:] != original.arrays["image"]).any(axis=-1)
    assert not (differs & ~told[N:]).any()


def test_copies_are_the_same_for_a_seed_and_an_example_whatever_the_selection():
    first, mask = paint(source(), "train", seed=1)
    again, _ = paint(source(), "train", seed=1)
    np.testing.assert_array_equal(first, again)
    chosen = np.array([5, 17, 40])
    few, few_mask = paint(source(rows=chosen), "train", seed=1)
    np.testing.assert_array_equal(few, first[chosen])
    np.testing.assert_array_equal(few_mask, mask[chosen])
    other, _ = paint(source(), "train", seed=2)
    assert (other != first).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_only_what_the_mask_covers_is_changed(channels):
    original = source(channels)
    covered = behind_test_objects(original)
    mask = covered.arrays["occlusion"]
    assert mask.shape == (N, 64, 64)
    assert mask.dtype == bool
    changed = (covered.arrays["image"] != original.arrays["image"]).any(axis=-1)
    assert not (changed & ~mask).any()
    assert changed[mask].mean() > 0.9
    assert 0.05 < mask.mean() < 0.35
    np.testing.assert_array_equal(covered.arrays["landmarks"], original.arrays["landmarks"])


def test_all_methods_are_tested_behind_the_same_objects():
    original = source()
    without = dataclasses.replace(original, arrays={k: v for k, v in original.arrays.items() if k != "landmarks"})
    for name in ("image", "occlusion"):
        np.testing.assert_array_equal(*(behind_test_objects(s).arrays[name] for s in (original, without)))


def test_held_out_examples_train_neither_as_they_are_nor_covered(tiny):
    config = tiny("acnn")
    setup = make_setup(config)
    plain = tiny("acnn")
    plain.data.occluded_copies = False
    before = make_setup(plain)
    assert len(setup.train) == 2 * len(before.train)
    assert len(setup.validation) == len(before.validation)
    assert not set(setup.train.rows.tolist()) & set(setup.validation.rows.tolist())
    assert not set(setup.train.arrays["subject"].tolist()) & set(setup.validation.arrays["subject"].tolist())
    np.testing.assert_array_equal(setup.validation.arrays["image"], before.validation.arrays["image"])
    assert setup.task.steps_per_epoch == 2 * before.task.steps_per_epoch
    assert "occlusion" not in setup.train.arrays


@pytest.mark.parametrize("path", ["data.points", "data.occluded_copies", "evaluation.occluded", "evaluation.degraded"])
def test_clips_are_refused(path, tiny):
    config = tiny("fan")
    group, name = path.split(".")
    config[group][name] = {"points": "face24", "degraded": ("jpeg:1",)}.get(name, True)
    with pytest.raises(UserError, match=f"config.{path}=.* is for images, but .* has clips: leave it out"):
        make_setup(config)
