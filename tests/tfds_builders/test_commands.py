"""The commands beside `build`: list, verify and show; and how equal pictures are found."""

import dataclasses
import importlib.util
import json
import pathlib

import fake_fer2013
import fake_pictures
import fake_rafdb
import numpy as np
import pytest
from PIL import Image

from fer_jax import labels
from fer_jax.data.sources.source import prepared_builder
from tfds_builders import __main__ as command
from tfds_builders import look_alikes, registry
from tfds_builders.catalogue import CATALOGUE
from tfds_builders.contact_sheet import COLUMNS, GAP, NAME, TILE, TITLE, contact_sheet
from tfds_builders.fer2013 import reading
from tfds_builders.rafdb import rafdb_dataset_builder as rafdb
from tfds_builders.verify import Findings, _check_people, _note_black, _note_equal, _read, _Split, verify


@pytest.fixture
def fer2013(tmp_path, monkeypatch, capsys):
    """A prepared FER-2013 of random pictures, and its folder."""
    monkeypatch.setattr(reading, "COUNTS", fake_fer2013.COUNTS)
    fake_fer2013.write_csv(tmp_path / "files", fake_fer2013.make())
    data = ["--data_dir", str(tmp_path / "data")]
    assert command.main(["build", "fer2013", "--manual_dir", str(tmp_path / "files"), *data]) == 0
    capsys.readouterr()
    return data


def test_every_builder_has_a_row_in_the_list(tmp_path, capsys, fer2013):
    folders = pathlib.Path(registry.__file__).parent.glob("*/*_dataset_builder.py")
    assert set(CATALOGUE) == {path.parent.name for path in folders}
    assert command.main(["list", *fer2013]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CATALOGUE) + 1
    assert [line.split()[0] for line in lines[1:]] == registry.names()
    by_name = {line.split()[0]: line.split()[-1] for line in lines}
    assert by_name["fer2013"] == "1.0.0"
    assert by_name["rafdb"] == "no"


def test_verify_finds_black_and_leaked_pictures(capsys, tmp_path, fer2013):
    assert command.main(["verify", "fer2013", *fer2013, "--out", str(tmp_path / "found.json")]) == 0
    said = capsys.readouterr().out
    assert "1 black pictures: train 4" in said
    assert "1 pictures of public_test are also in train" in said
    assert "1 pictures of private_test are also in train" in said
    numbers = json.loads((tmp_path / "found.json").read_text())
    total = int(fake_fer2013.COUNTS.sum())
    assert (numbers["pictures"], numbers["distinct"], numbers["black"]) == (total, total - 2, 1)
    assert numbers["equal_groups"] == 2


def test_verify_says_what_differs_from_the_published_numbers(capsys, monkeypatch, tmp_path, fer2013):
    more = fake_fer2013.COUNTS.copy()
    more[1, 3] += 5  # happy, as FER-2013 numbers it
    monkeypatch.setattr(reading, "COUNTS", more)
    again = ["build", "fer2013", "--manual_dir", str(tmp_path / "files"), *fer2013, "--overwrite", "--allow_counts"]
    assert command.main(again) == 0
    assert command.main(["verify", "fer2013", *fer2013]) == 1
    assert "wrong: not the published numbers: public_test: 1 instead of 6 happiness" in capsys.readouterr().out


def test_people_on_both_sides_of_a_split(tiny):
    builder = prepared_builder(tiny().data)
    findings = verify(builder)
    assert not findings.wrong
    assert set(findings.numbers["subjects"]) == {"train", "test"}
    split = _read(builder, "test")
    _check_people(findings, [dataclasses.replace(split, name="train"), split])
    assert "people are in train and in test" in findings.wrong[0]


def test_verify_and_show_of_clips(tiny):
    builder = prepared_builder(tiny("fan").data)
    findings = verify(builder)
    assert findings.numbers["pictures"] == sum(split.num_examples for split in builder.info.splits.values())
    assert contact_sheet(builder, "test").size[1] > TITLE


def test_the_contact_sheet_shows_each_class_in_its_row(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rafdb, "COUNTS", fake_rafdb.COUNTS)
    root = fake_rafdb.make(tmp_path / "files")
    data = ["--data_dir", str(tmp_path / "data")]
    assert command.main(["build", "rafdb", "--manual_dir", str(tmp_path / "files"), *data]) == 0
    out = tmp_path / "sheet.png"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command.main(["show", "rafdb", "--split=test", *data, "--out=~/sheet.png"]) == 0
    sheet = np.asarray(Image.open(out)).astype(int)
    assert sheet.shape == (TITLE + 7 * (TILE + GAP), NAME + COLUMNS * (TILE + GAP), 3)
    names = registry.make_builder("rafdb", str(tmp_path / "data")).info.features["label"].names
    for name, code in [row for row in fake_rafdb.names() if row[0].startswith("test")]:
        row = names.index(labels.canonical("rafdb", code))
        picture = Image.open(root / "Image" / "aligned" / name.replace(".jpg", "_aligned.jpg")).resize((TILE, TILE))
        top = TITLE + row * (TILE + GAP)
        tile = sheet[top : top + TILE, NAME : NAME + TILE]
        assert np.abs(tile - np.asarray(picture)).mean() < 8
    capsys.readouterr()
    assert command.main(["show", "rafdb", "--split=tests", *data]) == 2
    assert "did you mean 'test'?" in capsys.readouterr().err


def test_what_is_not_prepared(tmp_path, capsys):
    for name in ("verify", "show"):
        assert command.main([name, "rafdb", "--data_dir", str(tmp_path)]) == 2
        assert "is not prepared under" in capsys.readouterr().err


def test_the_perceptual_hash_sees_through_scale_compression_and_light():
    near, far = [], []
    images = [fake_pictures.pixels(f"{i}", 96, 96) for i in range(40)]
    hashes = [look_alikes.perceptual_hash(image) for image in images]
    for i, image in enumerate(images):
        small = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC))
        brighter = np.clip(0.8 * image.astype(float) + 30, 0, 255).astype(np.uint8)
        near += [(look_alikes.perceptual_hash(x) ^ hashes[i]).bit_count() for x in (small, brighter)]
        far += [(hashes[i] ^ other).bit_count() for other in hashes[:i]]
    assert np.mean(np.array(near) <= look_alikes.NEAR) > 0.8
    assert min(far) > look_alikes.NEAR


def test_near_pairs_are_all_pairs_within_the_distance():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 60, dtype=np.uint64)
    for i in range(0, 40, 2):  # copies that differ in 0 to 3 bits
        flips = rng.choice(64, int(rng.integers(0, 4)), replace=False)
        hashes[i + 1] = hashes[i] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = np.argwhere(np.triu(distance <= look_alikes.NEAR, 1))
    np.testing.assert_array_equal(look_alikes.near_pairs(hashes), expected)


def test_equal_pictures_have_equal_hashes_and_others_not():
    image = fake_pictures.pixels("a", 8, 8)
    assert look_alikes.pixel_hash(image) == look_alikes.pixel_hash(image.copy())
    assert look_alikes.pixel_hash(image) != look_alikes.pixel_hash(image.reshape(4, 16, 3))
    assert look_alikes.equal_groups([b"a", b"b", b"a", b"c", b"b", b"a"]) == [[0, 2, 5], [1, 4]]


def test_the_real_fer2013(real_data):
    """12 black pictures, 34,034 distinct ones, 288 of private_test that are in train: the counts of its CSV."""

    specification = importlib.util.spec_from_file_location("packed_fer2013", real_data / "fer2013.py")
    packed = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(packed)
    images, emotion, usage, *_ = packed.load()
    hashes = [look_alikes.pixel_hash(image) for image in images[..., None]]
    splits = []
    for i, name in enumerate(reading.SPLITS):
        rows = np.flatnonzero(usage == i)
        black = ~images[rows].any(axis=(1, 2))
        exact = [hashes[row] for row in rows]
        splits.append(_Split(name, emotion[rows], np.arange(len(rows)), exact, np.zeros(0, np.uint64), black, None))
    findings = Findings()
    _note_black(findings, splits)
    _note_equal(findings, splits)
    numbers = findings.numbers
    assert (numbers["black"], numbers["distinct"], numbers["equal_groups"]) == (12, 34_034, 1_516)
    assert numbers["conflicting_groups"] == 57
    assert numbers["equal_between_splits"]["private_test in train"] == 288
    assert numbers["equal_between_splits"]["public_test in train"] == 280
    assert numbers["equal_between_splits"]["private_test in public_test"] == 44
