"""MAFW's builder: eleven classes read by name, folds, and what is wrong with copies."""

import pathlib

import fake_mafw
import numpy as np
import pytest
from building import build, refusal

from fer_jax import labels
from tfds_builders.mafw import mafw_dataset_builder as mafw


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(mafw, "FOLD_SIZES", fake_mafw.FOLD_SIZES)


@pytest.mark.parametrize("lists", [fake_mafw.LISTS, pathlib.Path("Train & Test Set", "single", "no_caption")])
def test_clips_labels_and_folds(tmp_path, lists):
    builder = build("mafw", fake_mafw.make(tmp_path / "files", lists), tmp_path / "data", size=16)
    names = builder.info.features["label"].names
    assert names == [*labels.EMOTIONS, "anxiety", "helplessness", "disappointment"]
    source = builder.as_data_source("train")
    assert [(e["name"].decode(), names[e["label"]], e["fold"]) for e in source] == fake_mafw.clips()
    for example in source:
        levels = np.stack(example["frames"]).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(levels, fake_mafw.SHADE * np.array([1, 9, 10]), atol=1)
    assert builder.info.metadata["complete"]
    assert any("23 clips, 1 of them without a single expression" in line for line in builder.contents.found)


def test_lists_that_lack_their_first_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(mafw, "SHORT_SIZES", (4, 4, 3, 3, 4))
    files = fake_mafw.make(tmp_path / "files")
    for path in (files / fake_mafw.LISTS).glob("set_*/*.txt"):
        if path.parent.name != "set_5" or path.stem == "train":
            path.write_text(path.read_text().split("\n", 1)[1])
    builder = build("mafw", files, tmp_path / "data", size=16)
    assert len(builder.as_data_source("train")) == 18
    assert builder.info.metadata["complete"]


def test_a_test_set_that_lacks_a_clip(tmp_path):
    files = fake_mafw.make(tmp_path / "files")
    test = files / fake_mafw.LISTS / "set_2" / "test.txt"
    test.write_text(test.read_text().split("\n", 1)[1])  # one clip less
    assert "test sets: 4 instead of 5 set_2" in refusal("mafw", files, tmp_path)


def test_faces_that_are_missing(tmp_path):
    files = fake_mafw.make(tmp_path / "files")
    (files / "data" / "faces").rename(files / "data" / "other")  # data/frames, whole scenes, does not stand in
    assert "has no data/faces or faces of MAFW" in refusal("mafw", files, tmp_path)
