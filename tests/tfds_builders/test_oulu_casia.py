"""Oulu-CASIA's builder: cameras and lights, faces that are followed, cropped faces as they are, and bad copies."""

import shutil

import fake_oulu_casia
import fake_pictures
import numpy as np
import pytest
from building import build, examples, refusal

from fer_jax import labels
from fer_jax.faces.crops import Face, crop_face
from tfds_builders.oulu_casia import oulu_casia_dataset_builder as oulu

FACE = Face((20.0, 10.0, 40.0, 40.0), 1.0, np.array([[32.0, 24.0], [50.0, 25.0]]))
EDGE = 30  # columns whose mean says whether the detector of the tests finds the face


def found_where_bright(image):
    """A detector that finds `FACE` unless the left of the picture is dark."""
    return [FACE] if image[:, :EDGE].mean() > 8 else []


@pytest.fixture(autouse=True)
def three_people(monkeypatch, use_detector):
    monkeypatch.setattr(oulu, "PEOPLE", len(fake_oulu_casia.PEOPLE))
    use_detector(found_where_bright)


def test_faces_are_followed_and_frames_without_one_keep_their_place(tmp_path):
    root = fake_oulu_casia.make(tmp_path / "files")
    clip = root / "VL" / "Strong" / "P002" / "Fear"
    dark = np.asarray(fake_pictures.Image.open(clip / "001.jpeg")).copy()
    dark[:, : EDGE + 10] = 0
    fake_pictures.Image.fromarray(dark).save(clip / "001.jpeg", quality=95)
    builder = build("oulu_casia", tmp_path / "files", tmp_path / "data", size=32)
    names = builder.info.features["label"].names
    assert names == list(labels.classes(7)[1:])
    found = examples(builder)
    assert list(found) == [f"{p}/{e}" for p in fake_oulu_casia.PEOPLE for e in fake_oulu_casia.EMOTIONS]
    for name, example in found.items():
        person, emotion = name.split("/")
        assert names[example["label"]] == labels.canonical("oulu_casia", emotion)
        assert builder.info.metadata["subjects"][example["subject"]] == person
        count = 1 + fake_oulu_casia.EMOTIONS.index(emotion) % 3
        assert example["frames"].shape == (count, 32, 32, 3)
        assert example["frame_mask"].tolist() == [name != "P002/Fear" or i != 1 for i in range(count)]
    assert not found["P002/Fear"]["frames"][1].any()
    photo = np.asarray(fake_pictures.Image.open(clip / "000.jpeg"))
    crop = crop_face(photo, FACE, 32).image.astype(int)
    assert np.abs(found["P002/Fear"]["frames"][0] - crop).mean() < 3
    assert any("P002/Fear: no face found in 1 of 3 frames" in warning for warning in builder.contents.warnings)
    assert builder.info.metadata["complete"]


def test_whole_frames_become_square(tmp_path):
    root = fake_oulu_casia.make(tmp_path / "files")
    example = examples(build("oulu_casia", tmp_path / "files", tmp_path / "data", size=80, crop="none"))["P001/Sadness"]
    photo = np.asarray(fake_pictures.Image.open(root / "VL" / "Strong" / "P001" / "Sadness" / "001.jpeg"))
    assert np.abs(example["frames"][1, 10:70].astype(int) - photo).mean() < 3
    assert example["frames"][1, :8].mean() < 3
    assert example["frame_mask"].all()


def test_cameras_and_lights_are_variants_and_options(tmp_path):
    root = fake_oulu_casia.make(tmp_path / "files", ("VL/Strong", "NI/Dark"), within="OriginalImg")
    fake_pictures.write(root / "NI" / "Dark" / "P001" / "Anger" / "001.jpeg", 80, 60)
    builder = build("oulu_casia/ni_dark", tmp_path / "files", tmp_path / "data", size=8)
    assert len(examples(builder)["P001/Anger"]["frames"]) == 2
    # The folder of the cameras itself.
    builder = build("oulu_casia", root, tmp_path / "data", size=8, camera="ni", light="dark")
    assert len(examples(builder)["P001/Anger"]["frames"]) == 2
    builder = build("oulu_casia", tmp_path / "files", tmp_path / "data", size=8)
    assert len(examples(builder)["P001/Anger"]["frames"]) == 1
    said = refusal("oulu_casia/ni_weak", tmp_path / "files", tmp_path)
    assert "has no OriginalImg/NI/Weak/P001" in said


def test_cropped_faces_are_copied(tmp_path):
    fake_oulu_casia.make(tmp_path / "files")
    root = fake_oulu_casia.make(tmp_path / "files", within="PreProcess Img", size=(40, 44))
    builder = build("oulu_casia/vl_strong_cropped", tmp_path / "files", tmp_path / "data")
    example = examples(builder)["P013/Fear"]
    assert example["frames"].shape == (3, 44, 40, 3)
    stored = fake_pictures.Image.open(root / "VL" / "Strong" / "P013" / "Fear" / "002.jpeg")
    assert np.abs(example["frames"][2].astype(int) - np.asarray(stored)).max() <= 2  # by another decoder
    assert "of 40x44 pixels" in builder.contents.found[0]
    assert len(examples(build("oulu_casia/vl_strong_cropped", root, tmp_path / "other"))) == 18
    fake_pictures.write(root / "VL" / "Strong" / "P013" / "Fear" / "002.jpeg", 80, 60)
    said = refusal("oulu_casia/vl_strong_cropped", tmp_path / "files", tmp_path / "new")
    assert "P013/Fear frame 002.jpeg has 80x60 pixels, and this edition 40x44" in said


def test_gaps_may_be_accepted(tmp_path):
    root = fake_oulu_casia.make(tmp_path / "files", within="PreProcess Img")
    people = root / "VL" / "Strong"
    shutil.rmtree(people / "P001" / "Fear")
    for path in (people / "P002" / "Anger").glob("*.jpeg"):
        path.unlink()
    fake_pictures.truncated(people / "P013" / "Sadness" / "001.jpeg")
    name = "oulu_casia/vl_strong_cropped"
    said = refusal(name, tmp_path / "files", tmp_path)
    assert "P001/Fear is not there: unpack the archive again" in said
    assert "P002/Anger holds no picture" in said
    said = refusal(name, tmp_path / "files", tmp_path, allow_missing=2)
    assert "P013/Sadness frame 001.jpeg is damaged" in said
    builder = build(name, tmp_path / "files", tmp_path / "data", allow_missing=3)
    assert len(examples(builder)) == 15
    gaps = ("P001/Fear", "P002/Anger", "P013/Sadness")
    assert sorted(builder.info.metadata["missing"]) == [f"PreProcess Img/VL/Strong/{gap}" for gap in gaps]
    assert not builder.info.metadata["complete"]


def test_mistakes_in_the_tree(tmp_path):
    root = fake_oulu_casia.make(tmp_path / "files")
    people = root / "VL" / "Strong"
    (people / "P001" / "Fear").rename(people / "P001" / "страх")
    fake_pictures.write(people / "P002" / "Anger" / "000 (1).jpeg", 80, 60)
    fake_pictures.write(people / "P013" / "Sadness" / "0.jpeg", 80, 60)
    said = refusal("oulu_casia", tmp_path / "files", tmp_path)
    assert "P001/страх is not one of Anger, Disgust" in said
    assert "000 (1).jpeg is not named like a frame" in said
    assert "000.jpeg has the number of 0.jpeg" in said
    assert "--allow_missing" not in said


def test_holes_in_the_numbers_are_said(tmp_path):
    root = fake_oulu_casia.make(tmp_path / "files")
    (root / "VL" / "Strong" / "P001" / "Fear" / "001.jpeg").unlink()
    builder = build("oulu_casia", tmp_path / "files", tmp_path / "data", size=8)
    assert "1 sequences have holes" in builder.contents.warnings[0]
    assert len(examples(builder)["P001/Fear"]["frames"]) == 2


def test_folders_that_are_not_there(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "B_OriginalImg.zip").write_bytes(b"x")
    said = refusal("oulu_casia", tmp_path / "files", tmp_path)
    assert (
        "has no OriginalImg/VL/Strong/P001 of the original frames of Oulu-CASIA: unpack B_OriginalImg.zip there" in said
    )
