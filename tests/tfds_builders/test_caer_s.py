"""CAER-S's builder: faces by the public boxes or found, whole scenes, and what is wrong with copies."""

import fake_caer_s
import numpy as np
import pytest
from building import OneFace, build, refusal

from fer_jax import labels
from tfds_builders.caer_s import caer_s_dataset_builder as caer_s


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(caer_s, "COUNTS", fake_caer_s.COUNTS)


@pytest.fixture
def files(tmp_path):
    return fake_caer_s.make(tmp_path / "files")


def test_faces_by_their_boxes(files, tmp_path):
    builder = build("caer_s", files, tmp_path / "data", size=16)
    for split in fake_caer_s.COUNTS:
        source = builder.as_data_source(split)
        assert [e["name"].decode() for e in source] == fake_caer_s.names(split)
        for example in source:
            name = example["name"].decode()
            assert example["label"] == labels.EMOTIONS.index(labels.canonical("caer_s", name.split("/")[1]))
            np.testing.assert_allclose(example["image"], fake_caer_s.level(name), atol=4)
    assert builder.info.metadata["crop"] == {"by": "box", "margin": 0.0}
    assert builder.info.metadata["complete"]
    assert any("7 boxes; 1 pictures without one are not used" in line for line in builder.contents.found)


def test_whole_scenes_and_faces_that_are_found(files, tmp_path, use_detector):
    use_detector(OneFace())
    whole = build("caer_s/whole", files, tmp_path / "data", size=71).as_data_source("test")
    assert [e["name"].decode() for e in whole] == sorted([*fake_caer_s.names("test"), "test/Sad/2999.png"])
    scene = whole[0]["image"].mean(-1)
    assert (scene[:14] < 6).all()  # a black bar
    np.testing.assert_allclose(scene[28:44, 42:58], fake_caer_s.level("test/Anger/0001.png"), atol=8)
    builder = build("caer_s/faces", files, tmp_path / "data", size=16)
    assert len(builder.as_data_source("test")) == 8
    assert not any(e["no_face"] for e in builder.as_data_source("test"))
    assert builder.info.metadata["crop"] == {"by": "points", "margin": 0.0}


def test_lists_that_are_wrong(files, tmp_path):
    path = fake_caer_s.list_file(files, "test")
    rows = path.read_text()
    first = fake_caer_s.names("test")[0]
    for more, says in (
        (fake_caer_s.row(first), "a second time: remove one of the rows"),
        (f"{first},0", "where 'test/Sad/0157.png,5,191,109,293,211' is expected"),
    ):
        path.write_text(f"{rows}{more}\n")
        assert says in refusal("caer_s", files, tmp_path)


def test_pictures_that_are_missing(files, tmp_path):
    first = fake_caer_s.names("test")[0]
    (files / "CAER-S" / first).unlink()
    assert f"{first} is in test.txt and is not there" in refusal("caer_s", files, tmp_path)
