"""JAFFE's builder: TIFF becomes PNG without loss, people by their letters, and what is wrong with copies."""

from typing import Any

import fake_jaffe
import fake_pictures
import numpy as np
import pytest
import tensorflow_datasets as tfds
from building import OneFace, build, refusal

from experiments import baseline
from fer_jax import labels
from fer_jax.data.sources.source import example_names, load, take_fold
from tfds_builders.jaffe import jaffe_dataset_builder as jaffe


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(jaffe, "COUNTS", fake_jaffe.COUNTS)


def test_pictures_labels_and_people(tmp_path):
    root = fake_jaffe.make(tmp_path / "files")
    builder = build("jaffe", tmp_path / "files", tmp_path / "data")
    source: Any = tfds.data_source("jaffe", split="train", data_dir=str(tmp_path / "data"))
    names = sorted(path.name for path in root.glob("[A-Z]*.tiff"))
    assert [e["name"].decode() for e in source] == names
    for example in source:
        name = example["name"].decode()
        wanted = np.asarray(fake_pictures.Image.open(root / name))
        np.testing.assert_array_equal(example["image"][..., 0], wanted)
        assert example["code"].decode() == name[3:5]
        assert example["label"] == labels.EMOTIONS.index(labels.canonical("jaffe", name[3:5]))
        assert example["subject"] == fake_jaffe.PEOPLE.index(name[:2])
    assert builder.info.features["label"].names == list(labels.EMOTIONS[:7])
    assert builder.info.metadata["subjects"] == list(fake_jaffe.PEOPLE)
    assert builder.info.metadata["complete"]


def test_names_of_a_fold(tmp_path):
    root = fake_jaffe.make(tmp_path / "files")
    build("jaffe", tmp_path / "files", tmp_path / "data")
    config = baseline.get_config("jaffe").data
    config.update(dataset="jaffe", data_dir=str(tmp_path / "data"))
    names = sorted(path.name for path in root.glob("[A-Z]*.tiff"))
    person = fake_jaffe.PEOPLE[1]
    _, fold = take_fold(load(config, "train", training=False), 2)
    assert example_names(config, fold) == [name for name in names if name.startswith(person)]


def test_faces_are_cut_and_those_without_are_kept(tmp_path, use_detector):
    use_detector(OneFace())
    root = fake_jaffe.make(tmp_path / "files")
    fake_pictures.Image.new("L", (256, 256)).save(root / "KA.AN1.39.tiff")
    builder = build("jaffe/faces", tmp_path / "files", tmp_path / "data", size=48)
    source = builder.as_data_source("train")
    assert source[0]["image"].shape == (48, 48, 1)
    assert [e["no_face"] for e in source] == [True] + [False] * 14
    assert any("KA.AN1.39.tiff: no face was found" in warning for warning in builder.contents.warnings)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("KA.XX1.39.tiff", "has the label XX, and they are AN, DI"),
        ("ZZ.AN1.39.tiff", "is of ZZ, and people are KA"),
        ("portrait.tiff", "is not named like JAFFE's pictures (KA.AN1.39.tiff)"),
    ],
)
def test_names(tmp_path, name, says):
    root = fake_jaffe.make(tmp_path / "files")
    fake_pictures.write(root / name, 256, 256, channels=1)
    said = refusal("jaffe", tmp_path / "files", tmp_path)
    assert f"{name} {says}" in said
