"""CK+'s builder: sequences, labels, folds, landmarks in the crop, and what is wrong with copies."""

import shutil

import fake_ckplus
import fake_pictures
import numpy as np
import pytest
from building import build, examples, refusal

from fer_jax import labels
from fer_jax.faces.crops import align_points
from tfds_builders.ckplus import ckplus_dataset_builder as ckplus

LABELLED = [s for s in fake_ckplus.SEQUENCES if s[2] is not None]


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(ckplus, "COUNTS", fake_ckplus.COUNTS)


@pytest.fixture
def files(tmp_path):
    return fake_ckplus.make(tmp_path / "files")


def test_labeled_sequences_whole_with_their_landmarks_in_the_crop(files, tmp_path):
    builder = build("ckplus", files, tmp_path / "data", size=32)
    found = examples(builder)
    assert list(found) == [f"{subject}_{sequence}" for subject, sequence, _, _ in LABELLED]
    names = builder.info.features["label"].names
    assert names == list(labels.EMOTIONS[1:])
    for subject, sequence, code, frames in LABELLED:
        example = found[f"{subject}_{sequence}"]
        assert names[example["label"]] == labels.canonical("ckplus", code)
        assert example["code"] == code
        assert example["frames"].shape == (frames, 32, 32, 1)
        assert example["frame_mask"].shape == (frames,)
        assert example["frame_mask"].all()
        assert example["landmarks"].shape == (frames, 68, 2)
    # Each frame is aligned by its own points, so eyes and mouth keep their place while the face moves.
    moving = found["S005_001"]
    np.testing.assert_allclose(moving["landmarks"][0, 48], moving["landmarks"][3, 48], atol=1e-4)
    picture = fake_ckplus.images(files) / "S005" / "001" / "S005_001_00000002.png"
    crop = align_points(np.asarray(fake_pictures.Image.open(picture)), fake_ckplus.points(2), 32)
    np.testing.assert_array_equal(moving["frames"][1, ..., 0], crop.image)
    eye = moving["landmarks"][1, 36:42].mean(axis=0)
    np.testing.assert_allclose(eye, crop.matrix @ (25, 21, 1), atol=1e-3)
    metadata = builder.info.metadata
    assert metadata["complete"]
    assert "10 sequences, 8 of 7 people with an emotion" in builder.contents.found[0]


def test_the_rank_of_a_labeled_subject_modulo_ten_is_its_fold(files, tmp_path):
    metadata = (builder := build("ckplus", files, tmp_path / "data", size=8)).info.metadata
    assert metadata["subjects"] == ["S005", "S010", "S011", "S022", "S501", "S502", "S999"]
    for name, example in examples(builder).items():
        assert metadata["subjects"][example["subject"]] == name.partition("_")[0]
        assert example["fold"] == example["subject"] % ckplus.FOLDS


def test_without_contempt(files, tmp_path):
    builder = build("ckplus/without_contempt", files, tmp_path / "data", size=8)
    assert builder.info.features["label"].names == list(labels.classes(7)[1:])
    found = examples(builder)
    assert "S501_002" not in found
    assert found["S502_004"]["fold"] == 5  # as with contempt
    assert builder.info.metadata["complete"]


def test_whole_frames_become_square(files, tmp_path):
    shutil.rmtree(files / "Landmarks" / "S005" / "001")
    found = examples(build("ckplus", files, tmp_path / "data", size=64, crop="none"))
    picture = fake_ckplus.images(files) / "S010" / "002" / "S010_002_00000002.png"
    stored = found["S010_002"]["frames"][1, ..., 0]
    original = np.asarray(fake_pictures.Image.open(picture)).astype(int)
    above = (64 - 49) / 2  # half a row: interpolated
    middle = (original[1:] + original[:-1]) / 2
    assert np.abs(stored[8 : 8 + 48] - middle).max() <= 1
    np.testing.assert_allclose(found["S010_002"]["landmarks"][1], np.add(fake_ckplus.points(2), [0, above]), atol=1e-3)
    assert np.isnan(found["S005_001"]["landmarks"]).all()
    assert found["S999_006"]["frames"].shape == (2, 64, 64, 1)  # of 48 rows, and in color


def test_what_the_copy_lacks_is_a_gap_that_may_be_accepted(files, tmp_path):
    images = fake_ckplus.images(files)
    (images / "S005" / "001" / "S005_001_00000002.png").unlink()
    (files / "Landmarks" / "S010" / "002" / "S010_002_00000001_landmarks.txt").unlink()
    shutil.rmtree(images / "S011" / "001")
    fake_pictures.truncated(images / "S022" / "005" / "S022_005_00000001.png")
    said = refusal("ckplus", files, tmp_path)
    assert "3 problems" in said
    assert "S005_001_00000002.png is not there, though it has landmarks" in said
    assert "S010_002_00000001_landmarks.txt is not there: unpack Landmarks.zip again" in said
    assert "cohn-kanade-images/S011/001 has an emotion and no pictures" in said
    assert "S022/005 frame S022_005_00000001.png is damaged" in refusal("ckplus", files, tmp_path, allow_missing=3)
    builder = build("ckplus", files, tmp_path / "data", allow_missing=4, size=8)
    assert len(builder.info.metadata["missing"]) == 4
    assert not builder.info.metadata["complete"]
    assert examples(builder)["S999_006"]["subject"] == 6  # the lost ones keep their numbers


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("   8.0000000e+00\n", "says '8.0000000e+00', and codes are 1 to 7"),
        ("   2.5\n", "says '2.5'"),
        ("", "says 'nothing'"),
        ("1.0 2.0", "says '1.0 2.0'"),
    ],
)
def test_emotions_that_are_none(files, tmp_path, said, says):
    fake_ckplus.emotion(files, "S010", "002", 3).write_text(said)
    refused = refusal("ckplus", files, tmp_path)
    assert f"S010_002_00000003_emotion.txt {says}" in refused
    assert "--allow_missing" not in refused


def test_other_mistakes_in_the_trees(files, tmp_path):
    images = fake_ckplus.images(files)
    shutil.copy(images / "S010" / "002" / "S010_002_00000001.png", images / "S005" / "001")
    fake_pictures.write(images / "S011" / "001" / "S011_001_00000001.jpg", *fake_ckplus.SIZE)
    fake_ckplus.text(fake_ckplus.emotion(files, "S022", "005", 1), "1.0")
    fake_ckplus.emotion(files, "S502", "004", 2).rename(fake_ckplus.emotion(files, "S502", "004", 7))
    said = refusal("ckplus", files, tmp_path)
    assert "S005/001/S010_002_00000001.png is not named like a frame of S005/001" in said
    assert "S011_001_00000001.png exists in two formats" in said
    assert "S022/005 holds 2 files of emotions" in said
    assert "S502_004_00000007.png is not there, though it is the peak" in said


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("1 2 3", "are not 68 rows of x and y"),
        (fake_ckplus.rows(np.full((68, 2), np.nan)), "are not 68 rows of x and y"),
        (fake_ckplus.rows(fake_ckplus.points() * 10), "lie outside of their picture of 64x49 pixels"),
        (fake_ckplus.rows(np.full((68, 2), 20.0)), "all lie on one spot"),
    ],
)
def test_landmarks_that_are_none(files, tmp_path, said, says):
    fake_ckplus.text(files / "Landmarks" / "S010" / "002" / "S010_002_00000002_landmarks.txt", said)
    refused = refusal("ckplus", files, tmp_path)
    assert says in refused
    assert "S010/002" in refused
    assert "--allow_missing=1" in refused


def test_a_doubled_folder(files, tmp_path):
    shutil.move(files / "Landmarks", tmp_path / "kept")
    shutil.move(tmp_path / "kept", files / "Landmarks" / "Landmarks")
    assert len(examples(build("ckplus", files, tmp_path / "data", size=8))) == len(LABELLED)
