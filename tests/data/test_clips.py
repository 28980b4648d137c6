"""Clips in RAM: flat frames, what training draws of them, and clips that hardly are any."""

import numpy as np
import pytest

from fer_jax.data.sources import clips
from fer_jax.data.sources.source import Source, load, split_off
from fer_jax.errors import UserError
from fer_jax.training.setup import make_setup

LENGTHS = np.array([5, 0, 1, 10_000, 2, 12])


def arrays_of(length):
    length = np.asarray(length, np.int32)
    return {"length": length, "start": (np.cumsum(length) - length).astype(np.int32)}


def source(lengths=LENGTHS, hidden=()):
    """Clips whose frames show their own place in the flat list; `hidden` places have no face."""
    arrays = arrays_of(lengths)
    total, n = int(arrays["length"].sum()), len(lengths)
    pixels = np.zeros((total, 2, 2, 3), np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = np.arange(total) % 256, np.arange(total) // 256
    mask = np.ones(total, bool)
    mask[list(hidden)] = False
    label = (np.arange(n) % 3).astype(np.int32)
    arrays |= {
        "label": label,
        "target": np.eye(3, dtype=np.float32)[label],
        "index": np.arange(n, dtype=np.int32),
        "subject": np.arange(n, dtype=np.int32),
    }
    frames = {"frames": pixels, "frame_mask": mask, "frame_intensity": np.arange(total, dtype=np.float32)}
    return Source("known/clips", "train", ("a", "b", "c"), arrays, np.arange(n), frames)


def drawn_from(arrays, mask, sampling="segments", frames=3, single=False, steps=60, seed=0):
    """All draws of many steps: (instances, frames [steps, M, K])."""
    made = clips.clip_sampler(arrays, mask, sampling=sampling, frames=frames, single=single, seed=seed)
    return made, np.stack([made.draw(np.arange(len(made)), seed, step).frame for step in range(steps)])


def test_segments_are_disjoint_half_open_and_cover_the_clip():
    arrays = arrays_of([9, 10, 11, 3])
    made, frames = drawn_from(arrays, np.ones(33, bool), steps=400)
    assert made.row.tolist() == [0, 1, 2, 3]
    for clip, (start, length) in enumerate(zip(arrays["start"], arrays["length"], strict=True)):
        slots = [set(frames[:, clip, k].tolist()) for k in range(3)]
        assert sum(map(len, slots)) == len(set.union(*slots)) == length  # disjoint, and every frame has its turn
        assert set.union(*slots) == set(range(start, start + length))
        assert max(slots[0]) < min(slots[1])
        assert max(slots[1]) < min(slots[2])


def test_a_draw_is_a_function_of_seed_and_step():
    arrays = arrays_of([50, 60])
    _, first = drawn_from(arrays, np.ones(110, bool), steps=5)
    _, again = drawn_from(arrays, np.ones(110, bool), steps=5)
    _, other = drawn_from(arrays, np.ones(110, bool), steps=5, seed=1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(np.unique(first[:, 0], axis=0)) > 1  # drawn anew at every step


def test_only_faces_are_drawn_and_clips_without_any_are_masked():
    data = source(hidden=[0, 3, 5, *range(6, 200)])  # clip 2 (frame 5) has no face left
    mask = data.frames["frame_mask"]
    made, frames = drawn_from(data.arrays, mask)
    assert mask[frames[frames >= 0]].all()
    assert (frames[:, [1, 2]] == -1).all()  # the empty clip and the one without a face
    assert (frames[:, [0, 3, 4, 5]] >= 0).all()
    assert len(made) == len(data)
    assert set(frames[:, 0].ravel().tolist()) == {1, 2, 4}
    assert data.frame_counts() == {"frames": 10_020, "without_face": 197, "clips_without_face": 2}


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_faces_than_segments_repeat(count):
    _, frames = drawn_from(arrays_of([count]), np.ones(count, bool))
    assert set(frames.ravel().tolist()) == set(range(count))
    assert (np.diff(frames[0, 0]) >= 0).all()


def test_single_frames_are_every_face_once():
    data = source([4, 0, 3], hidden=[1])
    made, frames = drawn_from(data.arrays, data.frames["frame_mask"], single=True, steps=2)
    assert frames[0].tolist() == [[0], [2], [3], [4], [5], [6]]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert made.row.tolist() == [0, 0, 0, 2, 2, 2]


@pytest.mark.parametrize(("sampling", "third"), [("official", (6, 8)), ("official_ckplus", (2, 3))])
def test_the_authors_triples(sampling, third):
    """One for every face, kept for all steps, from ranges that share their ends; N = 9 behind a masked frame."""
    data = source([10, 3], hidden=[0])
    many = [drawn_from(data.arrays, data.frames["frame_mask"], sampling, steps=2, seed=s) for s in range(60)]
    made, frames = many[0]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert made.row.tolist() == [0] * 9 + [1] * 3
    long = np.concatenate([f[0, :9] for _, f in many]) - 1
    p = 3 if sampling == "official" else 1
    for column, (low, high) in enumerate([(0, p), (p, 2 * p), third]):
        assert (long[:, column].min(), long[:, column].max()) == (low, high)
    short = np.stack([f[0, 9:] for _, f in many]) - 10
    np.testing.assert_array_equal(short[:, :, 0], np.tile([0, 1, 2], (60, 1)))  # face j and two at random
    assert set(short[:, :, 1:].ravel().tolist()) == {0, 1, 2}


def test_official_draws_are_triples():
    with pytest.raises(UserError, match="config.data.clip_frames=4: .*3"):
        clips.clip_sampler(arrays_of([5]), np.ones(5, bool), sampling="official", frames=4, single=False, seed=0)


def test_no_face_anywhere_is_refused():
    with pytest.raises(UserError, match="none of the 2 training clips"):
        clips.clip_sampler(arrays_of([5, 0]), np.zeros(5, bool), sampling="segments", frames=3, single=False, seed=0)


def test_selections_share_the_frames_and_keep_their_places():
    data = source(hidden=[2])
    part = data.select(np.array([5, 0, 1]))
    assert part.frames is data.frames
    fields = part.fields()
    expected = [*range(10_008, 10_020), *range(5)]
    np.testing.assert_array_equal(fields["frame_intensity"], expected)
    assert fields["frame_mask"].sum() == 16
    kept, held = split_off(data, 0.4, seed=0)
    assert sorted([*kept.rows.tolist(), *held.rows.tolist()]) == list(range(6))
    assert kept.frames is held.frames


def test_pictures_are_the_middle_faces():
    data = source(hidden=[0, 1, 5])
    shown = data.pictures()
    assert shown[:, 0, 0, 0].tolist() == [3, 0, 0, (6 + 5_000) % 256, (10_007) % 256, (10_008 + 6) % 256]
    assert shown[2].max() == 0  # no face: black
    assert data.picture_shape == (2, 2, 3)


def test_the_last_faces_become_images():
    data = source(hidden=[4])
    images = data.last_faces(3)
    assert images.unit == "images"
    assert images.rows.tolist() == [0, 0, 0, 2, 3, 3, 3, 4, 4, 5, 5, 5]
    assert images.arrays["frame_intensity"][:3].tolist() == [1, 2, 3]
    assert images.arrays["clip_frame"][:3].tolist() == [1, 2, 3]
    assert images.arrays["label"].tolist() == data.arrays["label"][images.rows].tolist()
    assert images.arrays["index"].tolist() == list(range(12))
    np.testing.assert_array_equal(images.arrays["image"][:, 0, 0, 0], images.arrays["frame_intensity"] % 256)
    assert not {"start", "length", "frames", "frame_mask"} & set(images.arrays)


def test_stored_clips_of_any_length_load_flat():
    """What the decoder hands over, clip by clip, becomes one list with offsets."""
    fields = {"length": np.array([2, 0, 1]), "frames": np.arange(3), "landmarks": np.arange(3), "label": np.arange(3)}
    arrays, frames = clips.separate(fields)
    assert set(frames) == {"frames", "landmarks", "frame_mask"}
    assert frames["frame_mask"].all()
    assert arrays["start"].tolist() == [0, 2, 2]


def test_synthetic_clips_load_with_their_truth(tiny):
    config = tiny("fan")
    data = load(config.data, "train", training=True)
    assert len(data) == 84
    assert data.frames["frames"].shape == (84 * 5, 64, 64, 3)
    assert data.arrays["votes"].shape == (84, 10)
    assert data.frames["landmarks"].shape == (420, 68, 2)
    counts = data.frame_counts()
    assert 0 < counts["without_face"] < 100
    assert (data.frames["frame_intensity"][~data.frames["frame_mask"]] == 0).all()
    assert data.last_faces(1).arrays["frame_intensity"].mean() > 0.5  # 0.04 at the ends, which are neutral again
    again = load(config.data, "train", training=True)  # from the decoded copy
    for name, values in data.fields().items():
        np.testing.assert_array_equal(values, again.fields()[name])


@pytest.mark.parametrize(
    ("method", "changes", "says"),
    [
        ("baseline", {"dataset": "synthetic_faces/clips"}, "takes images, .* set config.data.last_frames=3"),
        (
            "fan",
            {"dataset": "synthetic_faces/basic"},
            "takes clips, .* a data set of clips, such as synthetic_faces/clips",
        ),
        ("fan", {"last_frames": 3}, "set config.data.last_frames=0 to take whole clips"),
        ("baseline", {"last_frames": 3}, "config.data.last_frames=3: synthetic_faces/basic has no clips; .*0"),
        ("fan", {"clip_sampling": "segment"}, "config.data.clip_sampling='segment': did you mean 'segments'"),
        ("fan", {"clip_frames": 0}, "config.data.clip_frames=0 is out of range"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(method, changes, says, tiny):
    config = tiny("fan")
    if method == "baseline":
        config = tiny("baseline")
        config.data.builder = tiny("fan").data.builder if "dataset" in changes else config.data.builder
    elif "dataset" in changes:
        config.data.builder = tiny("baseline").data.builder
    config.data.update(changes)
    with pytest.raises(UserError, match=says) as caught:
        make_setup(config)
    assert "\n" not in str(caught.value)
