"""Pictures that stay on disk: the same pixels as in memory, and only the records that are asked for."""

import numpy as np
import pytest

from fer_jax.data.corrupt.occlusion import with_occluded_copies
from fer_jax.data.sources import decoding, on_disk
from fer_jax.data.sources.on_disk import LazyPictures
from fer_jax.data.sources.source import load, prepared_builder, split_off
from fer_jax.training.runner import StepRunner
from fer_jax.training.setup import make_setup


@pytest.fixture(params=["baseline", "fan"])
def both(request, tiny):
    """A split of images, and of clips, in memory and on disk."""
    config = tiny(request.param)
    in_memory = load(config.data, "test", training=False)
    config.data.path = "disk"
    return in_memory, load(config.data, "test", training=False)


def pictures(source):
    return source.frames["frames"] if source.frames else source.arrays["image"]


def test_rows_of_every_kind_give_the_same_pixels(both):
    in_memory, stored = map(pictures, both)
    assert isinstance(stored, LazyPictures)
    assert (stored.shape, stored.dtype, stored.ndim) == (in_memory.shape, in_memory.dtype, in_memory.ndim)
    assert stored.nbytes == in_memory.nbytes
    rows = np.random.default_rng(0).integers(0, len(stored), (3, 5))
    for key in (0, -1, slice(2, 7), slice(None, None, 9), rows, rows[0], np.array([4, 4, 1]), np.arange(0)):
        np.testing.assert_array_equal(stored[key], in_memory[key])
    np.testing.assert_array_equal(np.asarray(stored), in_memory)


def test_selections_read_nothing_and_agree(both):
    in_memory, stored = both
    rows = np.arange(len(stored))[::-3]
    some, same = stored.select(rows), in_memory.select(rows)
    np.testing.assert_array_equal(some.pictures(), same.pictures())
    np.testing.assert_array_equal(some.rows, same.rows)
    for one, two in zip(split_off(stored, 0.3, seed=0), split_off(in_memory, 0.3, seed=0), strict=True):
        np.testing.assert_array_equal(one.pictures(), two.pictures())
    if stored.frames:
        faces, same_faces = stored.last_faces(2), in_memory.last_faces(2)
        assert isinstance(faces.arrays["image"], LazyPictures)
        np.testing.assert_array_equal(np.asarray(faces.arrays["image"]), same_faces.arrays["image"])


def test_only_the_records_of_the_rows_are_read(both, monkeypatch):
    stored = pictures(both[1])
    records, asked = stored.read._records, []

    class Counting:
        def __getitems__(self, rows):
            asked.extend(rows)
            return records.__getitems__(rows)

    monkeypatch.setattr(stored.read, "_records", Counting())
    chosen = stored.at(np.array([9, 3, 3, 5]))
    assert asked == []
    chosen[np.array([0, 2, 1])]
    assert sorted(asked) == sorted(set(stored.read._record[[9, 3]].tolist()))


def test_training_gets_the_same_batches_and_never_holds_them_all(tiny, monkeypatch):
    config = tiny()
    expected = make_setup(config)
    config.data.path = "disk"
    setup = make_setup(config)
    assert not setup.resident
    monkeypatch.setattr(LazyPictures, "__array__", None)  # nobody turns all of it into an array
    config.data.path = "stream"
    streamed = make_setup(config)
    from_disk, from_memory = StepRunner(setup, 0), StepRunner(streamed, 0)
    for _ in range(3):
        one, two = from_disk.next_batch(), from_memory.next_batch()
        for name in two:
            np.testing.assert_array_equal(one[name], two[name])
    assert expected.train.class_counts().tolist() == setup.train.class_counts().tolist()


def test_what_does_not_fit_stays_on_disk_by_itself(tiny, monkeypatch):
    monkeypatch.setattr(decoding, "fit_in_memory", lambda shape: False)
    setup = make_setup(tiny())
    assert isinstance(setup.train.arrays["image"], LazyPictures)
    assert not setup.resident
    assert on_disk.fit_in_memory((10, 10, 10, 3))
    assert not on_disk.fit_in_memory((10**9, 224, 224, 3))


def test_pictures_of_two_sizes_are_refused(both, monkeypatch):
    stored = pictures(both[1])
    monkeypatch.setattr(stored.read, "shape", (7, 9, 3))
    with pytest.raises(on_disk.UserError, match="64x64 and of 9x7 pixels"):
        stored[0]


@pytest.mark.parametrize("data", [b"", b"no picture"])
def test_a_picture_that_is_none_is_refused(data):
    reader = on_disk.RecordReader(None, "image", (4, 4, 3), np.arange(1), np.zeros(1, int), "faces, split test,")
    with pytest.raises(on_disk.UserError, match="faces, split test, .* cannot be decoded"):
        reader._decode(data)


def test_a_split_of_clips_keeps_their_frames_together(tiny):
    config = tiny("fan")
    builder = prepared_builder(config.data)
    raw = list(builder.as_data_source("test"))
    lengths = [len(example["frames"]) for example in raw]
    config.data.path = "disk"
    stored = load(config.data, "test", training=False)
    assert stored.arrays["length"].tolist() == lengths
    start = int(stored.arrays["start"][2])
    np.testing.assert_array_equal(stored.frames["frames"][start : start + lengths[2]], raw[2]["frames"])
    assert stored.unit == "clips"


def test_copies_behind_objects_are_painted_as_they_are_needed(tiny):
    config = tiny()
    in_memory = with_occluded_copies(load(config.data, "test", training=False), seed=3)
    config.data.path = "disk"
    stored = with_occluded_copies(load(config.data, "test", training=False), seed=3)
    assert stored.on_disk
    count = len(in_memory)
    rows = np.random.default_rng(0).permutation(count)[:20]
    np.testing.assert_array_equal(stored.arrays["image"][rows], in_memory.arrays["image"][rows])
    some = stored.select(rows)
    np.testing.assert_array_equal(some.arrays["image"][np.arange(20)], in_memory.arrays["image"][rows])
    assert (stored.arrays["image"][count - 1] != stored.arrays["image"][count // 2 - 1]).any()
