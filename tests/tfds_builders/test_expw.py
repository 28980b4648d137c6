"""ExpW's builder: every face of a picture, our split by picture, and what is wrong with copies."""

import fake_expw
import numpy as np
import pytest
from building import OneFace, build, refusal

from experiments import baseline
from fer_jax import labels
from fer_jax.data.sources.source import load, split_off
from tfds_builders.expw import expw_dataset_builder as expw


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    monkeypatch.setattr(expw, "FACES", len(fake_expw.faces()))


@pytest.fixture
def files(tmp_path):
    return fake_expw.make(tmp_path / "files")


def test_every_face_by_its_box(files, tmp_path):
    builder = build("expw", files, tmp_path / "data", size=20, test=0.4)
    found = {split: builder.as_data_source(split) for split in ("train", "test")}
    rows = [(e["name"].decode(), e["face"], e["code"]) for source in found.values() for e in source]
    assert sorted(rows) == sorted(fake_expw.faces())
    for source in found.values():
        wanted = [face for face in fake_expw.faces() if face[0] in {e["name"].decode() for e in source}]
        assert [(e["name"].decode(), e["face"], e["code"]) for e in source] == wanted  # in the order of the list
        for example in source:
            assert example["label"] == labels.EMOTIONS.index(labels.canonical("expw", example["code"]))
            inside = example["image"][:, :8]  # the third face of a picture is cut by its edge
            np.testing.assert_allclose(inside, fake_expw.level(example["code"]), atol=12)
    assert builder.info.metadata["complete"]
    assert builder.info.metadata["crop"] == {"by": "box", "margin": 0.0}
    assert any("14 pictures" in line for line in builder.contents.found)


def test_pictures_are_never_divided(files, tmp_path):
    builder = build("expw", files, tmp_path / "data", size=16, test=0.4)
    train, test = ({e["name"] for e in builder.as_data_source(split)} for split in ("train", "test"))
    assert train
    assert test
    assert not train & test
    config = baseline.get_config("expw").data
    config.update(dataset="expw", data_dir=str(tmp_path / "data"), builder={"size": 16, "test": 0.4})
    parts = split_off(load(config, "train", training=True), 0.4, seed=0)
    assert not set(parts[0].arrays["subject"]) & set(parts[1].arrays["subject"])
    share = np.mean([expw.in_test(f"{i}.jpg", 0.1) for i in range(5000)])
    assert abs(share - 0.1) < 0.02
    assert expw.in_test("0.jpg", 1 - 1e-9)
    assert [i for i in range(40) if expw.in_test(f"{i}.jpg", 0.1)] == [26, 34, 36, 38]  # on any machine


def test_faces_that_are_found_in_their_boxes(files, tmp_path, use_detector):
    use_detector(OneFace())
    builder = build("expw/faces", files, tmp_path / "data", size=16)
    assert builder.info.metadata["crop"] == {"by": "points", "margin": 0.0}
    assert not any(e["no_face"] for e in builder.as_data_source("train"))


def test_rows_of_the_list(files, tmp_path):
    path = fake_expw.list_file(files)
    rows = path.read_text()
    (name, number, code), *_ = fake_expw.faces()
    for more, says in (
        (fake_expw.row(name, number, code), f"names the face {number} of {name} a second time"),
        (fake_expw.row(name, 5, 7), "has the label 7, and codes are 0 to 6"),
        (fake_expw.row(name, 5, -1), "has the label -1, and codes are 0 to 6"),
        (f"{name} 5 10 5 30 68.36 3", "where 'friend_marry_67.jpg 0 62"),
    ):
        path.write_text(f"{rows}{more}\n")
        assert says in refusal("expw", files, tmp_path)
    path.write_text(rows.replace(f"{fake_expw.row(name, number, code)}\n", ""))
    assert "instead of" in refusal("expw", files, tmp_path)
    assert len(list((files / "image" / "origin").iterdir())) == 15


def test_pictures_that_are_missing(files, tmp_path):
    gone = files / "image" / "origin" / "angry_boy_1.jpg"
    gone.unlink()
    assert f"{gone} with its face 1 is in label.lst and is not there" in refusal("expw", files, tmp_path)
    assert "test=1.0 must be a share" in refusal("expw", files, tmp_path, test=1.0)
