"""FED-RO's builder: folders of classes, faces or whole photos, and what is wrong with copies."""

from typing import Any

import fake_fed_ro
import fake_pictures
import pytest
import tensorflow_datasets as tfds
from building import OneFace, build, refusal

from fer_jax import labels
from tfds_builders.fed_ro import fed_ro_dataset_builder as fed_ro


@pytest.fixture(autouse=True)
def small(monkeypatch, use_detector):
    assert sum(fed_ro.COUNTS.values()) == 400
    monkeypatch.setattr(fed_ro, "COUNTS", dict.fromkeys(labels.classes(7), fake_fed_ro.EACH))
    use_detector(OneFace())


def test_folders_of_classes(tmp_path):
    root = fake_fed_ro.make_folders(tmp_path / "files")
    fake_pictures.Image.new("RGB", (70, 90)).save(root / "sad" / "1.jpg")
    builder = build("fed_ro", tmp_path / "files", tmp_path / "data", size=40)
    source: Any = tfds.data_source("fed_ro/faces-size40", split="test", data_dir=str(tmp_path / "data"))
    assert [e["name"].decode() for e in source] == [f"{n}/{k}.jpg" for n in sorted(fake_fed_ro.FOLDERS) for k in (0, 1)]
    for example in source:
        folder = example["code"].decode()
        assert labels.EMOTIONS[example["label"]] == fake_fed_ro.FOLDERS[folder]
        assert example["image"].shape == (40, 40, 3)
        assert example["no_face"] == (example["name"] == b"sad/1.jpg")  # kept: what is hard to find is the point
    assert builder.info.metadata["complete"]


def test_copies_that_are_not_it(tmp_path):
    root = fake_fed_ro.make_folders(tmp_path / "files")
    fake_pictures.write(root / "other" / "a.jpg")
    assert "other holds pictures but is not named like one of the seven classes" in refusal(
        "fed_ro", tmp_path / "files", tmp_path
    )
    fake_fed_ro.make_folders(tmp_path / "files" / "FED_RO_aligned")
    assert "holds FED-RO more than once" in refusal("fed_ro", tmp_path / "files", tmp_path)
