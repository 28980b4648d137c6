"""FERV39k's builder: both lists, frames of any size, and what is wrong with copies."""

import fake_ferv39k
import fake_pictures
import numpy as np
import pytest
from building import build, refusal

from fer_jax import labels
from tfds_builders.face_crops import resized
from tfds_builders.ferv39k import ferv39k_dataset_builder as ferv39k


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(ferv39k, "COUNTS", fake_ferv39k.COUNTS)


@pytest.fixture
def files(tmp_path):
    return fake_ferv39k.make(tmp_path / "files")


def test_clips_of_both_lists(files, tmp_path):
    builder = build("ferv39k", files, tmp_path / "data", size=16)
    assert builder.info.features["label"].names == list(labels.EMOTIONS[:7])
    for split in fake_ferv39k.COUNTS:
        source, wanted = builder.as_data_source(split), fake_ferv39k.clips(split)
        assert [(e["name"].decode(), e["code"].decode()) for e in source] == wanted
        assert [e["label"] for e in source] == [labels.EMOTIONS.index(labels.name_of(code)) for _, code in wanted]
        for example in source:
            levels = np.stack(example["frames"]).mean(axis=(1, 2, 3))
            np.testing.assert_allclose(levels, fake_ferv39k.SHADE * np.array([1, 9, 10]), atol=1)
            assert example["frame_mask"].all()
    folder = fake_ferv39k.clip_folder(files, fake_ferv39k.clips("train")[0][0])
    file, _ = resized(str(folder / "9.jpg"), 3, None, 16)
    assert file.getvalue() == (folder / "9.jpg").read_bytes()  # copied
    assert builder.info.metadata["complete"]
    assert any("20 clips, 1 of them in neither list" in line for line in builder.contents.found)


def test_frames_of_any_size_become_squares_of_one(files, tmp_path):
    name = fake_ferv39k.clips("train")[0][0]
    fake_pictures.flat(fake_ferv39k.clip_folder(files, name) / "9.jpg", 180, width=40, height=20)
    builder = build("ferv39k", files, tmp_path / "data", size=32, every=2)
    frames = np.stack(builder.as_data_source("train")[0]["frames"])
    assert frames.shape == (2, 32, 32, 3)  # 1 and 10
    assert not any("black bars" in line for line in builder.contents.warnings)
    builder = build("ferv39k", files, tmp_path / "data", size=32)
    wide = builder.as_data_source("train")[0]["frames"][1]
    assert wide[16].min() > 170  # the middle, between bars
    assert wide[:7].max() < 10
    assert any("1 frame put between black bars, as it is not square" in line for line in builder.contents.warnings)


def test_lists_that_contradict_themselves(files, tmp_path):
    (name, code), (other, _), *_ = fake_ferv39k.clips("train")
    test = fake_ferv39k.list_file(files, "test")
    rows = test.read_text()
    for more, says in (
        (f"{name} {code}", f"{test} has the clip {name}, which {fake_ferv39k.list_file(files, 'train')} has too"),
        (f"{other} Fear", f"{test} labels {other} Fear, unlike its folder"),
    ):
        test.write_text(f"{rows}{more}\n")
        assert says in refusal("ferv39k", files, tmp_path)
