"""The digest of a data set: the same however it is stored in files, another one for any other picture or label."""

import json
import os
import types

import cv2
import numpy as np
import pytest
from array_record.python import (
    array_record_data_source,
    array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorflow_datasets.proto import tf_example_pb2

from fer_jax.data.sources.records import DIGESTS, data_digest
from fer_jax.data.sources.source import load, prepared_builder
from fer_jax.errors import UserError


def record(label, picture):
    example = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
    example.features.feature["label"].int64_list.value.append(label)
    example.features.feature["image"].bytes_list.value.append(cv2.imencode(".png", picture)[1].tobytes())
    return example.SerializeToString()


@pytest.fixture
def stored(tmp_path):
    """A function that stores eight faces in so many files and returns their builder."""
    rng = np.random.default_rng(0)
    pictures, labels = rng.integers(0, 256, (8, 4, 4, 1)).astype(np.uint8), np.arange(8) % 2

    def write(name, shards=1, pictures=pictures, labels=labels, classes=("a", "b")):
        folder = tmp_path / name
        folder.mkdir()
        paths = []
        for shard, rows in enumerate(np.array_split(np.arange(8), shards)):
            paths.append(str(folder / f"faces-test.array_record-{shard:05d}-of-{shards:05d}"))
            writer = array_record_module.ArrayRecordWriter(paths[-1], "group_size:1")
            for row in rows:
                writer.write(record(int(labels[row]), pictures[row]))
            writer.close()
        data = types.SimpleNamespace(data_source=array_record_data_source.ArrayRecordDataSource(paths))
        features = {"label": types.SimpleNamespace(names=list(classes)), "image": None}
        info = types.SimpleNamespace(name="faces", features=features)
        return types.SimpleNamespace(info=info, data_path=folder, as_data_source=lambda split: data)

    write.pictures, write.labels = pictures, labels
    return write


def test_the_division_into_files_does_not_matter(stored):
    digests = {data_digest(stored(f"{shards} files", shards), "test") for shards in (1, 2, 5)}
    assert len(digests) == 1
    assert len(digests.pop()) == 64


def test_one_pixel_one_label_one_name_or_another_order_change_it(stored):
    pixel, label = stored.pictures.copy(), stored.labels.copy()
    pixel[3, 1, 2] ^= 1
    label[5] = 0
    turned = {"pictures": stored.pictures[::-1], "labels": stored.labels[::-1]}
    changes = [{}, {"pictures": pixel}, {"labels": label}, {"classes": ("a", "c")}, turned]
    assert len({data_digest(stored(str(n), **change), "test") for n, change in enumerate(changes)}) == len(changes)


def test_it_is_written_at_preparation_and_computed_once_for_older_data(tiny, tmp_path):
    data = tiny().data
    data.data_dir = str(tmp_path)
    builder = prepared_builder(data)
    kept = builder.data_path / DIGESTS
    written = json.loads(kept.read_text())
    assert written.keys() == {"train", "test"}
    assert load(data, "test", training=False).data_digest == written["test"]["sha256"]
    kept.unlink()  # prepared by an older version
    assert data_digest(builder, "test") == written["test"]["sha256"]
    kept.write_text(json.dumps({"test": {"sha256": "kept", "files": written["test"]["files"]}}))
    assert data_digest(builder, "test") == "kept"
    kept.write_text(json.dumps({"test": written["test"] | {"files": {"other": 1}}}))  # the folder was copied
    assert data_digest(builder, "test") == written["test"]["sha256"]
    kept.write_text("{")
    assert data_digest(builder, "test") == written["test"]["sha256"]


def test_records_that_were_exchanged_after_preparation_are_refused(stored):
    label = stored.labels.copy()
    label[5] = 0
    first, other = stored("first"), stored("other", labels=label)
    before, expected = data_digest(first, "test"), data_digest(other, "test")
    ((file,), (replacement,)) = (builder.data_path.glob("*record*") for builder in (first, other))
    assert file.stat().st_size == replacement.stat().st_size
    file.write_bytes(replacement.read_bytes())
    os.utime(file, (later := file.stat().st_mtime + 60, later))
    assert expected != before
    with pytest.raises(UserError, match="has changed since it was prepared"):
        data_digest(first, "test")
