"""AffectNet's builder: both releases, seven and eight classes, and what is wrong with copies."""

import fake_affectnet
import fake_pictures
import numpy as np
import pytest
import tensorflow_datasets as tfds
from building import build, refusal

from fer_jax import labels
from tfds_builders.affectnet import affectnet_dataset_builder as affectnet

PHOTOS = "Manually_Annotated/Manually_Annotated_Images"


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    for split, counts in fake_affectnet.COUNTS.items():
        monkeypatch.setitem(affectnet.COUNTS, split, counts)


@pytest.mark.parametrize("header", [False, True])
def test_photos_are_cropped_by_their_box(tmp_path, header):
    files = fake_affectnet.make_csv(tmp_path / "files", header)
    builder = build("affectnet", files, tmp_path / "data", size=50)
    for split in ("train", "validation"):
        read = list(builder.as_data_source(split))
        assert [e["code"] for e in read] == fake_affectnet.codes(split)
        assert [e["label"] for e in read] == [
            labels.EMOTIONS.index(labels.canonical("affectnet", c)) for c in fake_affectnet.codes(split)
        ]
    example = builder.as_data_source("train")[0]
    assert example["image"].shape == (50, 50, 3)
    x, y, side, _ = fake_affectnet.BOX
    np.testing.assert_allclose(example["landmarks"], (fake_affectnet.MARKS - (x, y)) * 50 / side, atol=0.5)
    photo = fake_pictures.Image.open(files / PHOTOS / example["name"].decode())
    half = np.asarray(photo.crop((x, y, x + side, y + side)).resize((50, 50)))
    assert np.abs(half.astype(int) - example["image"]).mean() < 4
    assert example["valence"] == pytest.approx(0.25)
    assert builder.info.metadata["complete"]
    assert builder.info.metadata["crop"] == {"by": "box", "margin": 0.0}
    assert any("3 of them of no class" in line for line in builder.contents.found)


def test_the_newer_release_is_copied(tmp_path):
    files = fake_affectnet.make_npy(tmp_path / "files")
    builder = build("affectnet", files, tmp_path / "data")
    raw = list(builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()}))
    assert [e["code"] for e in raw] == fake_affectnet.codes("train")
    for example in raw:
        path = files / "train_set" / "images" / f"{example['name'].decode()}.jpg"
        assert example["image"] == path.read_bytes()
    np.testing.assert_allclose(raw[0]["landmarks"], fake_affectnet.MARKS, rtol=1e-6)
    assert raw[0]["arousal"] == pytest.approx(-0.055556)


@pytest.mark.parametrize("make", [fake_affectnet.make_csv, fake_affectnet.make_npy])
def test_seven_classes(tmp_path, make):
    builder = build("affectnet/classes7", make(tmp_path / "files"), tmp_path / "data")
    assert builder.info.features["label"].names == list(labels.EMOTIONS[:7])
    assert {e["code"] for e in builder.as_data_source("validation")} == set(range(7))
    assert builder.info.metadata["complete"]


def test_one_validation_class_of_the_newer_release_has_one_less():
    full = affectnet.COUNTS["validation"]
    codes = [c for c, n in enumerate(full) for _ in range(n)]
    assert affectnet.one_less(codes, 8) == full
    assert affectnet.one_less([c for c in codes if c != 3], 8) == (1, 1, 1, 0, 1, 1, 1, 1)
    assert affectnet.one_less([c for c in codes if c not in (3, 4)], 8) == full
    assert affectnet.one_less([c for c in codes if c != 7], 7) == full


def test_landmarks_of_another_picture_are_unknown(tmp_path):
    files = fake_affectnet.make_csv(tmp_path / "files")
    path = files / fake_affectnet.LISTS / "training.csv"
    lines = path.read_text().splitlines()
    name = lines[1].split(",")[0]
    lines[1] = fake_affectnet.row(name, 0, marks=fake_affectnet.MARKS + 300)
    path.write_text("\n".join(lines))
    builder = build("affectnet", files, tmp_path / "data")
    assert np.isnan(builder.as_data_source("train")[0]["landmarks"]).all()
    assert np.isfinite(builder.as_data_source("train")[1]["landmarks"]).all()


def change_row(files, change):
    path = files / fake_affectnet.LISTS / "training.csv"
    lines = path.read_text().splitlines()
    lines[2] = change(lines[2])
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda row: row.replace(",0,0.25", ",11,0.25"), "has the expression 11, and codes are 0 to 10"),
        (lambda row: row.replace("50;60", "nan;60"), "where finite numbers are expected"),
        (lambda row: row.replace("50;60;", ""), "has 67 landmarks"),
        (lambda row: row.rpartition(",")[0], "has 8 fields where there are 9"),
        (
            lambda row: row.replace("training0001", "training0000").replace("2/", "1/").replace("JPG", "jpg"),
            "second time",
        ),
    ],
)
def test_rows_that_are_wrong(tmp_path, change, says):
    files = fake_affectnet.make_csv(tmp_path / "files")
    change_row(files, change)
    said = refusal("affectnet", files, tmp_path)
    assert "training.csv:3 " in said
    assert says in said
    assert "--allow_missing" not in said


def test_gaps_of_the_original_release(tmp_path):
    files = fake_affectnet.make_csv(tmp_path / "files")
    (files / PHOTOS / "1" / "training0000.jpg").unlink()
    fake_pictures.write(files / PHOTOS / "1" / "лицо.jpg")
    change_row(files, lambda row: fake_affectnet.row(row.split(",")[0], 0, box=(500, 500, 40, 40)))
    (files / PHOTOS / "1" / "Thumbs.db").write_bytes(b"x")
    said = refusal("affectnet", files, tmp_path)
    assert "2 problems" in said
    assert "training0000.jpg is in training.csv and is not there" in said
    assert "лицо.jpg is in no list" in said
    assert "its box (500, 500, 40, 40) is outside" in refusal("affectnet", files, tmp_path, allow_missing=2)
    builder = build("affectnet", files, tmp_path / "data", allow_missing=3)
    assert len(builder.as_data_source("train")) == sum(fake_affectnet.COUNTS["train"]) - 2


def test_problems_of_the_newer_release(tmp_path):
    files = fake_affectnet.make_npy(tmp_path / "files")
    notes = files / "train_set" / "annotations"
    (notes / "2_lnd.npy").unlink()
    (files / "train_set" / "images" / "9.jpg").unlink()
    said = refusal("affectnet", files, tmp_path)
    assert "2.jpg has no annotations/2_lnd.npy" in said
    assert "9_exp.npy is there without images/9.jpg" in said
    np.save(notes / "16_exp.npy", np.array("11"))
    (notes / "23_exp.npy").write_bytes(b"")
    said = refusal("affectnet", files, tmp_path)
    assert "16_exp.npy holds 11, and codes are 0 to 10" in said
    assert "23_exp.npy does not hold numbers" in said
    assert "--allow_missing" not in said


def test_both_releases(tmp_path):
    fake_affectnet.make_npy(fake_affectnet.make_csv(tmp_path / "files"))
    assert "holds both releases" in refusal("affectnet", tmp_path / "files", tmp_path)
