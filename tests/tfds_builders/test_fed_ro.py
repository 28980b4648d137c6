"""FED-RO's builder: folders of classes or a list, faces or whole photos, and what is wrong with copies."""

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


def test_a_list(tmp_path):
    listed = fake_fed_ro.make_list(tmp_path / "files")
    builder = build("fed_ro/whole", tmp_path / "files", tmp_path / "data", size=40)
    source = builder.as_data_source("test")
    rows = [line.split() for line in listed.read_text().splitlines()]
    assert [(e["name"].decode(), labels.EMOTIONS[e["label"]]) for e in source] == [tuple(row) for row in rows]
    tall = source[0]["image"]  # 60 wide, 80 high: five columns of black on each side
    assert tall[:, 6:-6].mean() > 20
    assert tall[:, :4].max() < 20
    # The path of a picture may say its class.
    listed.write_text("\n".join(f"{word}/{name}" for name, word in rows))
    source = build("fed_ro/whole", tmp_path / "files", tmp_path / "other", size=40).as_data_source("test")
    assert [labels.EMOTIONS[e["label"]] for e in source] == [word for _, word in rows]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("neu0.png 3", "has the label 3, and the class of a number is unknown"),
        ("neu0.png contempt", "has the label contempt, and they are neutral, happiness"),
        ("neu0.png", "is 'neu0.png' where 'a.jpg happy' is expected"),
        ("neu1.png neutral", "names neu1.png a second time"),
        ("gone.png neutral", "gone.png is listed and is not there"),
    ],
)
def test_rows_of_the_list(tmp_path, row, says):
    path = fake_fed_ro.make_list(tmp_path / "files")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([row, *lines[1:]]))
    said = refusal("fed_ro", tmp_path / "files", tmp_path)
    assert says in said
    if "gone" in row:
        assert "neu0.png is not in list.txt" in said


def test_copies_that_are_not_it(tmp_path):
    root = fake_fed_ro.make_folders(tmp_path / "files")
    fake_pictures.write(root / "other" / "a.jpg")
    assert "other holds pictures but is not named like one of the seven classes" in refusal(
        "fed_ro", tmp_path / "files", tmp_path
    )
    (root / "other" / "a.jpg").unlink()
    (root / "fear" / "1.jpg").unlink()
    assert "test: 1 instead of 2 fear" in refusal("fed_ro", tmp_path / "files", tmp_path)
    fake_fed_ro.make_folders(tmp_path / "files" / "FED_RO_aligned")
    assert "holds folders of classes more than once" in refusal("fed_ro", tmp_path / "files", tmp_path)
    path = fake_fed_ro.make_list(tmp_path / "listed")
    (path.parent / "old.txt").write_text(path.read_text())
    assert "holds two lists" in refusal("fed_ro", tmp_path / "listed", tmp_path)
    (tmp_path / "none").mkdir()
    assert "has neither folders of classes (happy/, sad/ ...) nor a list" in refusal(
        "fed_ro", tmp_path / "none", tmp_path
    )
    (tmp_path / "none" / "FED-RO.zip").write_bytes(b"x")
    assert "unpack FED-RO.zip there first" in refusal("fed_ro", tmp_path / "none", tmp_path)
