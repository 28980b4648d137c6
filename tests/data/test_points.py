"""ACNN's 24 points: the recipe against numbers worked out by hand, faces without landmarks, mirrored faces."""

import jax
import numpy as np
import pytest

from fer_jax.data.augment.augmentation import Augmentation
from fer_jax.data.augment.inputs import augmented_inputs, mirrored, plain_inputs
from fer_jax.data.augment.preprocessing import Preprocessing
from fer_jax.data.sources.points import MIRROR, attach_points, face_points, face_template
from fer_jax.errors import UserError, say_once

# For each iBUG landmark (from 0) the one in its place on a mirrored face.
IBUG_MIRROR = np.array([
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
    41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
])  # fmt: skip


@pytest.fixture(autouse=True)
def _says_again():
    say_once.cache_clear()


def numbered():
    """Landmark k (from 1) of a 256 crop at (k, 2 k): every point of the recipe can be read off."""
    k = np.arange(1, 69, dtype=np.float32)
    return np.stack([k, 2 * k], axis=-1)[None]


def test_the_recipe():
    expected = [
        (19, 36), (22, 34), (23, 36), (26, 50),  # brows, raised by 2, 10, 10 and 2
        (39, 78), (37, 74), (44, 88), (46, 92), (28, 56), (30, 60), (49, 98), (51, 102), (53, 106), (55, 110),
        (59, 118), (57, 114), (29, 58), (35, 70), (41.5, 83), (47.5, 95), (38.5, 77), (42, 84),
        (33, 82), (71, 94),  # beside the mouth's corners, 16 away and 16 up
    ]  # fmt: skip
    np.testing.assert_array_equal(face_points(numbered(), 256, 256)[0], expected)


def test_offsets_grow_with_the_crop():
    large = face_points(numbered(), 256, 256)
    np.testing.assert_allclose(face_points(numbered() / 4, 64, 64), large / 4, rtol=1e-6)
    stretched = face_points(numbered() * [0.5, 1], 256, 128)
    np.testing.assert_allclose(stretched, large * [0.5, 1], rtol=1e-6)


def test_from_a_crop_of_256_to_an_input_of_224():
    """The augmentation's resize does what the release does: times 224 / 256, to half a pixel."""
    image = np.zeros((1, 256, 256, 3), np.uint8)
    batch = {"image": image, "points": face_points(numbered(), 256, 256)}
    moved = plain_inputs(batch, Preprocessing(224))["points"]
    released = np.floor(batch["points"] * 224 / 256 + 0.5)
    assert np.abs(np.asarray(moved) - released).max() <= 0.6


def test_mirror_pairs_follow_from_the_landmarks():
    rng = np.random.default_rng(0)
    marks = rng.uniform(20, 80, (3, 68, 2)).astype(np.float32)
    flipped = (np.array([99, 0]) + np.array([-1, 1]) * marks)[:, IBUG_MIRROR]
    ours, theirs = (face_points(m.astype(np.float32), 100, 100) for m in (marks, flipped))
    expected = (np.array([99, 0]) + np.array([-1, 1]) * ours)[:, list(MIRROR["face24"])]
    np.testing.assert_allclose(theirs, expected, rtol=1e-5)
    assert np.array_equal(np.array(MIRROR["face24"])[list(MIRROR["face24"])], np.arange(24))


def test_a_flip_swaps_the_patches():
    """Through the augmentation, as in evaluation with both views, a patch stays the same part of the face."""
    marks = np.random.default_rng(0).uniform(10, 50, (12, 68, 2)).astype(np.float32)
    image = np.zeros((12, 64, 64, 3), np.uint8)
    batch = {"image": image, "points": face_points(marks, 64, 64)}
    inputs = plain_inputs(batch, Preprocessing(64))
    flipped = np.asarray(mirrored(inputs, MIRROR["face24"])["points"])
    other = (np.array([63, 0]) + np.array([-1, 1]) * marks)[:, IBUG_MIRROR].astype(np.float32)
    np.testing.assert_allclose(flipped, face_points(other, 64, 64), rtol=1e-4, atol=1e-4)

    flip = Augmentation(("flip",))
    augmented = augmented_inputs(jax.random.key(0), batch, flip, Preprocessing(64), mirror=MIRROR["face24"])
    kept = np.abs(np.asarray(augmented["points"]) - batch["points"]).max(axis=(1, 2)) < 1e-3
    turned = np.abs(np.asarray(augmented["points"]) - flipped).max(axis=(1, 2)) < 1e-3
    assert (kept ^ turned).all()
    assert turned.any()
    assert kept.any()


def test_the_template_is_an_average_face():
    found = face_template(224, 224, "rafdb/basic")
    assert found.shape == (24, 2)
    np.testing.assert_allclose(found[4:9], [(63, 72), (34, 77), (155, 72), (183, 78), (109, 74)])
    np.testing.assert_allclose(found[:4, 1], [48 - 1.75, 54 - 8.75, 54 - 8.75, 48 - 1.75])  # 2 and 10 of 256
    np.testing.assert_allclose(found[22:], [(62 - 14, 166 - 14), (157 + 14, 166 - 14)])
    np.testing.assert_allclose(face_template(48, 48, "rafdb/basic"), found * 48 / 224, rtol=1e-6)
    fitted = face_template(48, 48, "fer2013")
    mirrored = (np.array([47, 0]) + np.array([-1, 1]) * fitted)[list(MIRROR["face24"])]
    assert np.abs(fitted - mirrored).max() < 1.5  # pixels of 48: the middle face looks straight ahead


def test_faces_without_landmarks_get_the_template(capsys):
    marks = np.random.default_rng(0).uniform(10, 50, (4, 68, 2)).astype(np.float32)
    marks[1] = 0.0
    marks[2, 5, 1] = np.nan
    arrays = {"image": np.zeros((4, 64, 64, 3), np.uint8), "landmarks": marks}
    for _ in range(2):
        found = attach_points(arrays, kind="face24", dataset="faces", split="train")["points"]
    template = face_template(64, 64)
    np.testing.assert_array_equal(found[1], template)
    np.testing.assert_array_equal(found[2], template)
    np.testing.assert_allclose(found[[0, 3]], face_points(marks[[0, 3]], 64, 64))
    said = "faces, split train: 2 of 4 faces have no landmarks and get the points of an average face\n"
    assert capsys.readouterr().err == said  # once


def test_faces_without_landmarks_cannot_be_measured(capsys):
    marks = np.random.default_rng(0).uniform(10, 50, (4, 68, 2)).astype(np.float32)
    marks[1], marks[2, 5, 1] = 0.0, np.nan
    arrays = {"image": np.zeros((4, 64, 64, 3), np.uint8), "landmarks": marks}
    found = attach_points(arrays, kind="face68", dataset="faces", split="train")["points"]
    np.testing.assert_array_equal(found[[0, 3]], marks[[0, 3]])
    assert np.isnan(found[1:3]).all()
    assert "faces, split train: 2 of 4 faces have no landmarks and cannot be measured" in capsys.readouterr().err
    with pytest.raises(UserError, match="'face68': faces, split train, has no landmarks"):
        attach_points({"image": arrays["image"]}, kind="face68", dataset="faces", split="train")


def test_a_data_set_without_landmarks_says_so_once(capsys):
    arrays = {"image": np.zeros((3, 48, 48, 1), np.uint8)}
    for split in ("train", "test"):
        found = attach_points(arrays, kind="face24", dataset="fer2013", split=split)["points"]
    assert found.shape == (3, 24, 2)
    assert found.dtype == np.float32
    assert capsys.readouterr().err.count("fer2013 has no landmarks: every face gets the same 24 points") == 1
