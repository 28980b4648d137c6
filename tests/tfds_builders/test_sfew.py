"""SFEW's builder: aligned faces and full frames, and what is wrong with copies."""

from typing import Any

import fake_pictures
import fake_sfew
import numpy as np
import pytest
import tensorflow_datasets as tfds
from building import build, refusal

from fer_jax import labels
from fer_jax.faces.detection import Face
from tfds_builders.sfew import sfew_dataset_builder as sfew
from tfds_builders.verify import verify


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(sfew, "COUNTS", fake_sfew.COUNTS)
    monkeypatch.setattr(sfew, "ALIGNED_TOTALS", fake_sfew.TOTALS)


@pytest.mark.parametrize(
    "inner", ["Val_Aligned_Faces_new", "Val_Aligned_Faces", "Val_Aligned_Faces_new/Val_Aligned_Faces"]
)
def test_aligned_faces_are_copied_with_their_labels(tmp_path, inner):
    files = fake_sfew.make(tmp_path / "files", inner)
    builder = build("sfew", files, tmp_path / "data")
    folders = {"train": files / "Train" / "Train_Aligned_Faces", "validation": files / "Val" / inner}
    for split, folder in folders.items():
        source: Any = tfds.data_source(
            "sfew", split=split, data_dir=str(tmp_path / "data"), decoders={"image": tfds.decode.SkipDecoding()}
        )
        wanted = fake_sfew.names(split)
        assert [(e["name"].decode(), e["code"].decode()) for e in source] == wanted
        assert [e["label"] for e in source] == [
            labels.EMOTIONS.index(labels.canonical("sfew", code)) for _, code in wanted
        ]
        for example, (name, code) in zip(source, wanted, strict=True):
            assert example["image"] == (folder / code / name).read_bytes()
    assert builder.as_data_source("train")[0]["image"].shape == (181, 143, 3)
    assert builder.info.features["label"].names == list(labels.EMOTIONS[:7])
    assert builder.info.metadata["complete"]
    assert builder.info.metadata["crop"] == {}
    assert any("Test: not used, it has no labels" in line for line in builder.contents.found)
    assert verify(builder).wrong == []  # only the totals are published


def test_the_newer_alignment_is_taken(tmp_path):
    files = fake_sfew.make(tmp_path / "files")
    fake_sfew.make(tmp_path / "older", "Val_Aligned_Faces")
    (tmp_path / "older" / "Val" / "Val_Aligned_Faces").rename(files / "Val" / "Val_Aligned_Faces")
    builder = build("sfew", files, tmp_path / "data")
    assert any("Val_Aligned_Faces_new: 7 pictures" in line for line in builder.contents.found)


def test_faces_of_full_frames(tmp_path, use_detector):
    files = fake_sfew.make(tmp_path / "files")
    lost, code = fake_sfew.names("train")[1]
    blank = np.zeros((72, 90, 3), np.uint8)
    blank[:, 9:81] = 200  # the square in the middle
    fake_pictures.Image.fromarray(blank).save(files / "Train" / code / lost)
    face = Face((10, 20, 40, 40), 1.0, np.array([(22.0, 36.0), (38.0, 36.0)]))
    use_detector(lambda image: [] if not image[:, :9].any() else [face])
    builder = build("sfew/full", files, tmp_path / "data", size=32)
    source = builder.as_data_source("train")
    assert [bool(e["no_face"]) for e in source] == [name == lost for name, _ in fake_sfew.names("train")]
    assert {e["image"].shape for e in source} == {(32, 32, 3)}
    assert (np.abs(source[1]["image"][2:-2, 2:-2].astype(int) - 200) < 4).all()
    assert any(f"{lost}: no face was found" in line for line in builder.contents.warnings)
    name, code = fake_sfew.names("train")[0]
    photo = np.asarray(fake_pictures.Image.open(files / "Train" / code / name)).astype(int)
    # The eyes, 16 pixels apart around (30, 36), come to lie a little below a crop's middle row, as in every crop.
    eyes = source[0]["image"][round(0.4607 * 32 - 0.5), 16].astype(int)
    assert np.abs(eyes - photo[36, 30]).mean() < 12


def test_one_picture_twice(tmp_path):
    files = fake_sfew.make(tmp_path / "files")
    train = files / "Train" / "Train_Aligned_Faces"
    name, code = fake_sfew.names("validation")[0]
    fake_pictures.write(train / "Sad" / name, 143, 181)
    said = refusal("sfew", files, tmp_path)
    assert f"{code}/{name} has the same name as {train / 'Sad' / name}" in said
