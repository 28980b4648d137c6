"""RAF-CE's builder: codes, the parts of the partition, and what is wrong with copies."""

import fake_rafce
import numpy as np
import pytest
from building import build, refusal

from fer_jax import labels
from tfds_builders.rafce import rafce_dataset_builder as rafce


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(rafce, "PICTURES", len(fake_rafce.rows()))
    return fake_rafce.make(tmp_path / "files")


@pytest.mark.parametrize("test", [1, 2])
def test_pictures_labels_and_parts(files, tmp_path, test):
    builder = build("rafce", files, tmp_path / "data", size=16, test=test)
    names = builder.info.features["label"].names
    assert names == list(labels.COMPOUND_CODES["rafce"].values())
    for split, part in (("train", 0), ("test", test), ("validation", 3 - test)):
        source = builder.as_data_source(split)
        wanted = [(name, code) for name, code, other in fake_rafce.rows() if other == part]
        assert [(e["name"].decode(), e["code"]) for e in source] == wanted
        for example in source:
            assert names[example["label"]] == labels.COMPOUND_CODES["rafce"][int(example["code"])]
            np.testing.assert_allclose(example["image"], fake_rafce.level(example["code"]), atol=2)
    assert builder.info.metadata["complete"]
    assert any(f"--option=test={3 - test}" in line for line in builder.contents.warnings)


def test_lists_that_are_wrong(files, tmp_path):
    path = files / fake_rafce.LABELS
    rows = path.read_text()
    for more, says in (
        ("0100.jpg 14", "has the label 14, and labels are 0, 1, 2"),
        ("7777.jpg 3", "lists 7777.jpg, which RAFCE_partition.txt lacks"),
    ):
        path.write_text(f"{rows.rstrip()}\n{more}\n")
        assert says in refusal("rafce", files, tmp_path)
    path.write_text(rows.partition("\n")[2])
    assert "train: 13 instead of 14 in all" in refusal("rafce", files, tmp_path)
    path.write_text(rows)
    (files / "RAF-AU" / "aligned" / "0107_aligned.jpg").unlink()
    assert "0107_aligned.jpg is listed and is not there" in refusal("rafce", files, tmp_path)
    assert "option test='3' is not one of its values" in refusal("rafce", files, tmp_path, test=3)
