"""Builds a data set from a fake tree, or says why it was refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fer_jax.errors import UserError
from fer_jax.faces.detection import Face
from tfds_builders import registry


def build(name, manual_dir, data_dir, **options) -> Any:
    builder: Any = registry.make_builder(name, data_dir=str(data_dir), **options)
    builder.jobs = 1  # what a test puts in place of a detector does not reach other processes
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(manual_dir)))
    return builder


def refusal(name, manual_dir, tmp_path, **options) -> str:
    with pytest.raises(UserError) as error:
        build(name, manual_dir, tmp_path / "refused", **options)
    assert not list((tmp_path / "refused").rglob("dataset_info.json"))
    return str(error.value)


def examples(builder) -> dict:
    """The clips of the train split by name, their frames in one array each; TFDS returns these as a list."""
    return {e["name"].decode(): {**e, "frames": np.stack(e["frames"])} for e in builder.as_data_source("train")}


class OneFace:
    """A detector that finds one face, a quarter in from each side, in pictures that are not dark."""

    def __call__(self, image: np.ndarray) -> list[Face]:
        height, width = image.shape[:2]
        if image.mean() < 16:
            return []
        return [Face((width / 4, height / 4, width / 2, width / 2), 1.0)]
