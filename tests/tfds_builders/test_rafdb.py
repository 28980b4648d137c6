"""RAF-DB's builder: both parts, both sources, and what is wrong with copies."""

import os
import sys

import fake_pictures
import fake_rafdb
import numpy as np
import pytest
import tensorflow_datasets as tfds
from building import build, refusal

from fer_jax import labels
from tfds_builders import registry
from tfds_builders.rafdb import rafdb_dataset_builder as rafdb


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(rafdb, "COUNTS", fake_rafdb.COUNTS)


@pytest.mark.parametrize("nested", [False, True])
def test_aligned_faces_are_copied_with_their_labels(tmp_path, nested):
    root = fake_rafdb.make(tmp_path / "files", nested=nested)
    builder = build("rafdb", tmp_path / "files", tmp_path / "data")
    rows = fake_rafdb.names()
    for split in rafdb.COUNTS:
        wanted = [(name, code) for name, code in rows if name.startswith(split)]
        raw = list(builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()}))
        assert [(e["name"].decode(), e["code"]) for e in raw] == wanted
        assert [e["label"] for e in raw] == [
            labels.EMOTIONS.index(labels.canonical("rafdb", code)) for _, code in wanted
        ]
        for example, (name, _) in zip(raw, wanted, strict=True):
            file = next((root / "Image" / "aligned").rglob(name.replace(".jpg", "_aligned.jpg")))
            assert example["image"] == file.read_bytes()
    assert builder.info.features["label"].names == list(labels.EMOTIONS[:7])
    assert builder.info.metadata["complete"]
    assert builder.as_data_source("test")[0]["image"].shape == (100, 100, 3)
    assert not list((tmp_path / "data").rglob("*partial*"))


def test_original_photos_are_cropped_by_their_box(tmp_path):
    root = fake_rafdb.make(tmp_path / "files")
    builder = build("rafdb/basic_original", tmp_path / "files", tmp_path / "data", size=50)
    assert builder.info.metadata["crop"] == {"by": "box", "margin": 0.0}
    example = builder.as_data_source("test")[0]
    assert example["image"].shape == (50, 50, 3)
    # The square crop of side 100 about the box (40, 40, 120, 140) begins at (30, 40); 50 pixels of it are stored.
    photo = np.asarray(fake_pictures.Image.open(root / "Image" / "original" / "test_0001.jpg"))
    half = np.asarray(fake_pictures.Image.fromarray(photo[40:140, 30:130]).resize((50, 50)))
    assert np.abs(half.astype(int) - example["image"]).mean() < 4


def test_compound_labels(tmp_path):
    fake_rafdb.make(tmp_path / "files", "compound", {"train": (2,) * 11, "test": (1,) * 11})
    said = refusal("rafdb/compound", tmp_path / "files", tmp_path)
    assert "train: 22 instead of 3,162 in all; test: 11 instead of 792 in all" in said
    builder = build("rafdb/compound", tmp_path / "files", tmp_path / "data", allow_counts=True)
    assert builder.info.features["label"].names == list(labels.COMPOUND_CODES["rafdb"].values())
    (warning, *_) = builder.contents.warnings
    assert warning.startswith("both splits: 3 instead of 697 happily surprised, 3 instead of 266 happily disgusted")
    assert all(e["label"] == e["code"] - 1 for e in builder.as_data_source("train"))


def test_problems_of_files_are_shown_together_and_gaps_may_be_accepted(tmp_path):
    root = fake_rafdb.make(tmp_path / "files")
    aligned = root / "Image" / "aligned"
    fake_pictures.truncated(aligned / "train_00002_aligned.jpg")
    (aligned / "train_00003_aligned.jpg").unlink()
    fake_pictures.write(aligned / "train_99999_aligned.jpg")
    said = refusal("rafdb", tmp_path / "files", tmp_path)
    assert "2 problems" in said  # what the listing shows; the pictures are read after it
    assert "train_00003_aligned.jpg is listed and is not there" in said
    assert "train_99999_aligned.jpg is not in list_patition_label.txt" in said
    assert "--allow_missing=2" in said
    said = refusal("rafdb", tmp_path / "files", tmp_path, allow_missing=2)
    assert "3 problems" in said
    assert "train_00002_aligned.jpg is damaged" in said
    builder = build("rafdb", tmp_path / "files", tmp_path / "data", allow_missing=3)
    assert len(builder.as_data_source("train")) == sum(fake_rafdb.COUNTS["train"]) - 2
    again = registry.make_builder("rafdb", str(tmp_path / "data")).info.metadata
    aligned = aligned.relative_to(tmp_path / "files")
    assert not again["complete"]
    assert sorted(again["missing"]) == [f"{aligned}/train_{n}_aligned.jpg" for n in ("00002", "00003")]
    assert again["unlisted"] == [f"{aligned}/train_99999_aligned.jpg"]


def test_a_gap_that_is_allowed_excuses_no_other_numbers(tmp_path):
    root = fake_rafdb.make(tmp_path / "files", counts={"train": (2, 1, 1, 3, 2, 1, 2), "test": (1,) * 6 + (0,)})
    (root / "Image" / "aligned" / "train_00003_aligned.jpg").unlink()
    assert "test: 0 instead of 1 neutral" in refusal("rafdb", tmp_path / "files", tmp_path, allow_missing=1)


def test_files_that_systems_leave_are_no_pictures(tmp_path):
    root = fake_rafdb.make(tmp_path / "files")
    for name in (".DS_Store", "Thumbs.db", "._train_00001_aligned.jpg"):
        (root / "Image" / "aligned" / name).write_bytes(b"x")
    assert build("rafdb", tmp_path / "files", tmp_path / "data").info.metadata["complete"]


def test_boxes_that_are_missing_or_no_text(tmp_path):
    root = fake_rafdb.make(tmp_path / "files")
    path = root / "Annotation" / "boundingbox" / "test_0003_boundingbox.txt"
    for content in (b"\xff\xfe\x00", b"1 2 inf 4", b"1 2 3"):
        path.write_bytes(content)
        assert f"{path.name} is not there, or does" in refusal("rafdb/basic_original", tmp_path / "files", tmp_path)
    path.unlink()
    builder = build("rafdb/basic_original", tmp_path / "files", tmp_path / "data", allow_missing=1)
    assert len(builder.as_data_source("test")) == sum(fake_rafdb.COUNTS["test"]) - 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all names are text")
def test_a_name_that_is_not_utf8(tmp_path):
    root = fake_rafdb.make(tmp_path / "files")
    moved = tmp_path / os.fsdecode(b"caf\xe9")
    root.parent.rename(moved)
    assert "has a name that is not UTF-8" in refusal("rafdb", moved, tmp_path)


@pytest.mark.parametrize("kind", fake_pictures.BROKEN)
def test_broken_pictures(tmp_path, kind):
    root = fake_rafdb.make(tmp_path / "files")
    breaks, says = fake_pictures.BROKEN[kind]
    breaks(root / "Image" / "aligned" / "test_0003_aligned.jpg")
    said = refusal("rafdb", tmp_path / "files", tmp_path)
    assert f"test_0003_aligned.jpg {says}" in said


@pytest.mark.parametrize("kind", fake_pictures.ODD)
def test_odd_pictures_are_converted_and_said(tmp_path, kind):
    root = fake_rafdb.make(tmp_path / "files")
    file = root / "Image" / "aligned" / "test_0003_aligned.jpg"
    before = np.asarray(fake_pictures.Image.open(file)).astype(int)
    change, note = fake_pictures.ODD[kind]
    change(file)
    builder = build("rafdb", tmp_path / "files", tmp_path / "data")
    stored = builder.as_data_source("test")[2]["image"].astype(int)
    if kind == "sixteen_bits":
        before = np.round(before @ (0.299, 0.587, 0.114))[..., None]
    assert np.abs(stored - before).mean() < 6
    assert any(note in warning for warning in builder.contents.warnings)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("train_00001.jpg 8", "has the label 8, and labels are 1, 2, 3, 4, 5, 6, 7"),
        ("train_00001.jpg", "is 'train_00001.jpg' where"),
        ("train_00002.jpg 4", "a second time"),
    ],
)
def test_rows_of_the_list(tmp_path, row, says):
    root = fake_rafdb.make(tmp_path / "files")
    path = root / "EmoLabel" / "list_patition_label.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([row, *lines[1:]]))
    said = refusal("rafdb", tmp_path / "files", tmp_path)
    assert says in said
    assert "list_patition_label.txt:" in said
    assert "--allow_missing" not in said  # no flag accepts a wrong list


def test_other_counts(tmp_path, monkeypatch):
    fake_rafdb.make(tmp_path / "files", counts={"train": (2, 1, 1, 3, 2, 1, 2), "test": (1,) * 6 + (2,)})
    said = refusal("rafdb", tmp_path / "files", tmp_path)
    assert "test: 2 instead of 1 neutral" in said
    assert "--allow_counts" in said
    builder = build("rafdb", tmp_path / "files", tmp_path / "data", allow_counts=True)
    assert not builder.info.metadata["complete"]


def test_folders_that_are_not_there(tmp_path):
    (tmp_path / "files").mkdir()
    assert "has no basic/EmoLabel/list_patition_label.txt" in refusal("rafdb", tmp_path / "files", tmp_path)
    (tmp_path / "files" / "basic.zip").write_bytes(b"x")
    assert "unpack basic.zip there first" in refusal("rafdb", tmp_path / "files", tmp_path)
    root = fake_rafdb.make(tmp_path / "more")
    aligned = root / "Image" / "aligned"
    aligned.rename(root / "Image" / "gone")
    (root / "Image" / "aligned.zip").write_bytes(b"x")
    assert "unpack aligned.zip there first" in refusal("rafdb", tmp_path / "more", tmp_path)
    (root / "Image" / "gone").rename(aligned)
    fake_rafdb.make(tmp_path / "more" / "copy")
    assert "holds RAF-DB (basic) more than once" in refusal("rafdb", tmp_path / "more", tmp_path)


def test_a_folder_too_far_inside(tmp_path):
    root = fake_rafdb.make(tmp_path / "files")
    assert f"give {tmp_path / 'files'} instead" in refusal("rafdb", root, tmp_path)


def test_pictures_of_another_edition(tmp_path):
    root = fake_rafdb.make(tmp_path / "files")
    fake_pictures.write(root / "Image" / "aligned" / "test_0003_aligned.jpg", 112, 112)
    assert "has 112x112 pixels, and this edition 100x100" in refusal("rafdb", tmp_path / "files", tmp_path)


def test_a_box_outside_of_its_photo(tmp_path):
    root = fake_rafdb.make(tmp_path / "files")
    (root / "Annotation" / "boundingbox" / "test_0003_boundingbox.txt").write_text("400 400 500 500")
    said = refusal("rafdb/basic_original", tmp_path / "files", tmp_path)
    assert "has 160x180 pixels, and its box" in said


def test_the_flat_tree_names_the_builder_that_reads_it(tmp_path):
    fake_pictures.write(tmp_path / "files" / "DATASET" / "train" / "1" / "train_00001_aligned.jpg")
    assert "1 to surprise, 2 to fear" in (said := refusal("rafdb", tmp_path / "files", tmp_path))
    assert f"build image_folder/rafdb --manual_dir={tmp_path / 'files' / 'DATASET'}" in said
