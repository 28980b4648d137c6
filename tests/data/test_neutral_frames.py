"""The first faces of clips as neutral images: as CK+, MMI and Oulu-CASIA are used where the classes have neutral."""

import dataclasses

import numpy as np
import pytest

from fer_jax.data.sources import clips
from fer_jax.data.sources.source import Source, load, take_fold
from fer_jax.data.targets.labeled import with_neutral
from fer_jax.errors import UserError
from fer_jax.training.setup import make_setup

SIX = ("happiness", "surprise", "sadness", "anger", "disgust", "fear")


def source(lengths, classes=SIX, hidden=()):
    """Clips of subjects 10, 11, ... in folds 0, 1, 0, ...; a frame's value is its place in the flat list."""
    length = np.asarray(lengths, np.int32)
    total, n = int(length.sum()), len(length)
    label = (np.arange(n) % len(classes)).astype(np.int32)
    target = np.eye(len(classes), dtype=np.float32)[label]
    arrays = {"length": length, "start": (np.cumsum(length) - length).astype(np.int32), "label": label}
    arrays |= {"target": target, "vote_target": target, "votes": np.full((n, 10), 3), "subject": np.arange(n) + 10}
    arrays |= {"fold": np.arange(n, dtype=np.int32) % 2, "index": np.arange(n, dtype=np.int32)}
    mask = np.ones(total, bool)
    mask[list(hidden)] = False
    frames = {"frames": np.arange(total, dtype=np.uint8)[:, None, None, None], "frame_mask": mask}
    return Source("known/clips", "all", tuple(classes), arrays, np.arange(n), frames, folds=2)


def test_first_and_last_faces_of_each_clip_and_none_twice():
    data = source([6, 3, 0, 4, 5], hidden=[0, 17])  # the first clip has five faces left, the last one four
    images = data.last_faces(3, neutral=2)
    assert images.arrays["image"].ravel().tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
    neutral = images.arrays["label"] == 0
    assert np.flatnonzero(neutral).tolist() == [0, 1, 8, 12]
    assert images.rows.tolist() == [0] * 5 + [1] * 3 + [3] * 4 + [4] * 4
    assert images.arrays["index"].tolist() == list(range(16))


def test_clips_that_return_to_neutral_give_their_middle_faces():
    data = dataclasses.replace(source([7, 2, 4], hidden=[0]), name="mmi/frontal")  # the first clip has six faces left
    images = data.last_faces(3, neutral=1)
    assert images.arrays["image"].ravel().tolist() == [1, 2, 3, 4, 7, 8, 9, 10, 11]
    assert (images.arrays["label"] == 0).tolist() == [True] + [False] * 8
    assert data.last_faces(2).arrays["image"].ravel().tolist() == [3, 4, 7, 8, 10, 11]


def test_neutral_becomes_a_class_in_canonical_order():
    data = source([5, 5, 5, 5, 5, 5])
    images = data.last_faces(2, neutral=1)
    assert images.classes == ("neutral", *SIX)
    assert images.arrays["label"].tolist() == [v for c in range(6) for v in (0, c + 1, c + 1)]
    np.testing.assert_array_equal(images.arrays["target"], np.eye(7)[images.arrays["label"]])
    neutral = images.arrays["label"] == 0
    assert not images.arrays["vote_target"][neutral].any()  # nobody voted on these
    assert not images.arrays["votes"][neutral].any()
    np.testing.assert_array_equal(images.arrays["vote_target"][~neutral], images.arrays["target"][~neutral])
    assert data.arrays["votes"].all()  # the clips stay as they were


def test_classes_that_have_neutral_or_contempt_keep_their_places():
    label = np.array([0, 1, 2], np.int32)
    arrays = {"label": label, "target": np.eye(3, dtype=np.float32)[label]}
    for classes, expected in (
        (("neutral", "happiness", "fear"), ("neutral", "happiness", "fear")),
        (("contempt", "anger", "happiness"), ("neutral", "happiness", "anger", "contempt")),  # not in our order
    ):
        after, names = with_neutral(arrays, classes, np.array([False, True, False]))
        assert names == expected
        assert [names[k] for k in after["label"]] == [classes[0], "neutral", classes[2]]
        np.testing.assert_array_equal(after["target"].argmax(-1), after["label"])


def test_an_image_keeps_the_subject_and_the_fold_of_its_clip():
    images = source([5, 5, 1, 5], hidden=[10]).last_faces(3, neutral=1)  # the third clip has no face
    rest, fold = take_fold(images, 2)
    assert set(fold.arrays["subject"].tolist()) == {11, 13}
    assert set(rest.arrays["subject"].tolist()) == {10}
    assert fold.class_counts().tolist() == [2, 0, 3, 0, 3, 0, 0]


def test_what_cannot_be_neutral_is_said():
    with pytest.raises(UserError, match="no clip of known/clips, split all, has more than .*=3 faces .* 0"):
        source([3, 2]).last_faces(3, neutral=1)
    with pytest.raises(UserError, match="config.data.neutral_frames: .*'awed'"):
        source([5, 5], classes=("awed", "hatred")).last_faces(3, neutral=1)


def test_the_option_reaches_training_and_test_alike(tiny):
    config = tiny("baseline")
    config.data.dataset = "synthetic_faces/clips"
    config.data.builder = tiny("fan").data.builder
    config.data.neutral_frames = 1
    with pytest.raises(UserError, match="neutral_frames=1 .*set config.data.last_frames=3"):
        make_setup(config)
    config.data.last_frames = 2
    setup = make_setup(config)
    assert setup.train.unit == "images"
    for part in (setup.train, setup.validation, load(config.data, "test", training=False)):
        faces = np.bincount(part.rows)
        opening = np.append(True, np.diff(part.rows) > 0) & (faces[part.rows] == 3)
        assert opening.sum() > 5
        assert (part.arrays["label"][opening] == part.classes.index("neutral")).all()


def test_end_faces_of_nothing():
    arrays = {"start": np.zeros(1, np.int32), "length": np.zeros(1, np.int32)}
    owner, place, early = clips.end_faces(arrays, np.zeros(0, bool), 3, 1)
    assert len(owner) == len(place) == len(early) == 0
