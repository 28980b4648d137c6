"""DFEW's builder: folds, frames in order, votes, and what is wrong with copies."""

from typing import Any

import fake_dfew
import fake_pictures
import numpy as np
import pytest
import tensorflow_datasets as tfds
from building import build, refusal

from fer_jax import labels
from fer_jax.data.targets.votes import ferplus_targets
from tfds_builders.dfew import dfew_dataset_builder as dfew


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(dfew, "COUNTS", fake_dfew.COUNTS)
    monkeypatch.setattr(dfew, "FOLD_SIZES", fake_dfew.FOLD_SIZES)


@pytest.mark.parametrize(("mark", "nested"), [("-", False), ("_", True)])
def test_clips_labels_and_folds(tmp_path, mark, nested):
    fake_dfew.make(tmp_path / "files", mark, nested=nested)
    builder = build("dfew", tmp_path / "files", tmp_path / "data")
    source: Any = tfds.data_source("dfew", split="train", data_dir=str(tmp_path / "data"))
    assert list(builder.info.splits) == ["train"]
    wanted = fake_dfew.clips()
    assert [(int(e["name"]), e["code"], e["fold"]) for e in source] == wanted
    assert [e["name"] for e in source] == [b"%05d" % number for number, _, _ in wanted]
    assert [e["label"] for e in source] == [
        labels.EMOTIONS.index(labels.canonical("dfew", code)) for _, code, _ in wanted
    ]
    assert builder.info.features["label"].names == list(labels.EMOTIONS[:7])
    assert builder.info.metadata["complete"]
    for example in source:
        levels = np.stack(example["frames"]).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(levels, fake_dfew.SHADE * np.arange(1, 17), atol=1)
        np.testing.assert_array_equal(example["frame_mask"], [True] * 16)
        assert not example["votes"].any()
    assert any("12 clips, 2 of them without a single label" in line for line in builder.contents.found)


def test_clips_of_any_length_resized_and_thinned(tmp_path):
    fake_dfew.make(tmp_path / "files", edition="clip_224x224")
    builder = build("dfew/clip_224x224", tmp_path / "files", tmp_path / "data", size=24, every=2)
    for example in builder.as_data_source("train"):
        length = example["fold"] // 2 + 1  # of fold + 1
        np.testing.assert_array_equal(example["frame_mask"], [True] * length)
        frames = np.stack(example["frames"])
        assert frames.shape == (length, 24, 24, 3)
        np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), fake_dfew.SHADE * np.arange(1, 2 * length, 2), atol=1)


def test_votes_come_from_the_spreadsheet(tmp_path):
    fake_dfew.make(tmp_path / "files")
    fake_dfew.write_votes(tmp_path / "files")
    builder = build("dfew", tmp_path / "files", tmp_path / "data")
    votes = []
    for example in builder.as_data_source("train"):
        by_name = dict(zip(labels.FERPLUS_VOTES, example["votes"].tolist(), strict=True))
        code = int(example["code"])
        wanted = {labels.canonical("dfew", c): n for c, n in enumerate(fake_dfew.votes(code), start=1)}
        assert by_name == wanted | {"contempt": 0, "unknown": 0, "NF": 0}
        votes.append(example["votes"])
    keep, target = ferplus_targets(np.stack(votes), "majority")
    assert keep.all()
    np.testing.assert_array_equal(target.argmax(-1), [e["label"] for e in builder.as_data_source("train")])
    assert any("annotation.xlsx: votes on 10 clips" in line for line in builder.contents.found)


def test_a_spreadsheet_that_is_none_or_has_other_columns(tmp_path):
    files = fake_dfew.make(tmp_path / "files")
    fake_dfew.write_votes(files, header=False, order=(7, 1, 2, 3, 4, 5, 6))
    assert "annotation.xlsx has most votes for other emotions" in refusal("dfew", files, tmp_path)
    fake_pictures.text(files / "Annotation" / "annotation.xlsx")
    assert "annotation.xlsx is not an .xlsx file (BadZipFile" in refusal("dfew", files, tmp_path)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("5,0", "has the label 0, and labels are 1, 2"),
        ("clip,3", "is 'clip,3' where '1600,3' is expected"),
    ],
)
def test_rows_of_a_list(tmp_path, row, says):
    files = fake_dfew.make(tmp_path / "files")
    path = fake_dfew.list_file(files, "test", 0)
    head, _, *rest = path.read_text().splitlines()
    path.write_text("\n".join([head, row, *rest]))
    said = refusal("dfew", files, tmp_path)
    assert f"{path}:2 {says}" in said
    assert "accept the gaps with" not in said  # no flag accepts a wrong list


def test_lists_that_contradict_each_other(tmp_path):
    files = fake_dfew.make(tmp_path / "files")
    number, code, _ = fake_dfew.clips()[0]
    tests, trains = fake_dfew.list_file(files, "test", 1), fake_dfew.list_file(files, "train", 0)
    before = trains.read_text()
    tests.write_text(f"{tests.read_text()}{number:05d},{code}\n")
    said = refusal("dfew", files, tmp_path)
    assert f"set_2.csv has the clip {number:05d}, which {fake_dfew.list_file(files, 'test', 0)} has too" in said
    fake_dfew.make(tmp_path / "again")
    tests.write_text(fake_dfew.list_file(tmp_path / "again", "test", 1).read_text())
    trains.write_text(f"{before}{number},{code}\n")
    said = refusal("dfew", files, tmp_path)
    assert f"set_1.csv is not the other four test sets together (1 clips differ, such as {number:05d})" in said
    other, code, _ = fake_dfew.clips()[1]
    trains.write_text(before.replace(f"{other},{code}", f"{other},{code % 7 + 1}"))
    assert f"(1 clips differ, such as {other:05d})" in refusal("dfew", files, tmp_path)


def test_clips_that_are_missing_or_incomplete(tmp_path):
    files = fake_dfew.make(tmp_path / "files")
    (gone, _, _), (short, _, _), (empty, _, _), (broken, _, _), *_ = fake_dfew.clips()
    folders = [fake_dfew.clip_folder(files, number) for number in (gone, short, empty, broken)]
    folders[0].rename(files / "elsewhere")
    next(folders[1].iterdir()).unlink()
    for file in folders[2].iterdir():
        file.unlink()
    frame = sorted(folders[3].iterdir())[4]
    fake_pictures.truncated(frame)
    said = refusal("dfew", files, tmp_path)
    assert f"{folders[0]} is listed and is not there" in said
    assert f"{folders[1]} has 15 frames, and this edition 16" in said
    assert f"{folders[2]} has no frames" in said
    assert f"{folders[3]} frame {frame.name} is damaged" in refusal("dfew", files, tmp_path, allow_missing=3)
    builder = build("dfew", files, tmp_path / "data", allow_missing=4)
    assert sorted(builder.info.metadata["missing"]) == [
        f"Clip/{fake_dfew.EDITION}/{n:05d}" for n in (gone, short, empty, broken)
    ]
    assert len(builder.as_data_source("train")) == 6
    assert not builder.info.metadata["complete"]


def test_other_sizes_of_test_sets(tmp_path, monkeypatch):
    files = fake_dfew.make(tmp_path / "files")
    monkeypatch.setattr(dfew, "FOLD_SIZES", (3, 2, 2, 2, 1))
    said = refusal("dfew", files, tmp_path)
    assert "has not the published test sets: 2 instead of 3 set_1, 2 instead of 1 set_5" in said
    builder = build("dfew", files, tmp_path / "data", allow_counts=True)
    assert any("2 instead of 3 set_1" in line for line in builder.contents.warnings)
