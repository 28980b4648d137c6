"""TFDS builder of FER-2013: 35,887 gray faces of 48x48 pixels in seven classes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from fer_jax.errors import UserError
from tfds_builders.fer2013 import folders, reading
from tfds_builders.manual import Contents, ManualBuilder, encode_png

CLASSES = labels.classes(7)


class Builder(ManualBuilder):
    """FER-2013 in the order of its CSV. See README.md for the files and features."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS's own convention)
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put fer2013.csv into the folder; {reading.WHERE}."

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(48, 48, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=list(CLASSES)),
                    "code": np.int64,
                    "row": np.int64,
                    "black": np.bool_,
                    "leaked": np.bool_,
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def published(self) -> dict[str, dict[str, int]]:
        """Returns split -> class -> the number of pictures in the original."""
        names = [labels.canonical("fer2013", code) for code in range(7)]
        rows = [dict(zip(names, map(int, row), strict=True)) for row in reading.COUNTS]
        return {split: {name: row[name] for name in CLASSES} for split, row in zip(reading.SPLITS, rows, strict=True)}

    def read(self, manual_dir: epath.Path) -> Contents:
        """Reads the CSV, the archive or a folder version; a CSV comes first where several lie there."""
        if (path := reading.find_csv(manual_dir)) is not None:
            faces = reading.read_csv(path)
        elif (folder := folders.find_folder(manual_dir)) is not None:
            faces = folders.read_folder(folder)
        else:
            raise _nothing_found(manual_dir)
        if not self.allow_counts:
            reading.check_counts(faces)
        return contents(faces)


def contents(faces: reading.Faces) -> Contents:
    """Returns the splits of `faces` that are not empty, their counts, and what is unusual about them."""
    label = labels.index_table("fer2013", num_classes=7)[faces.code]
    black, leaked = faces.black, faces.leaked

    def examples(split: int) -> Iterator[dict[str, Any]]:
        for i in np.flatnonzero(faces.split == split):
            yield {
                "image": encode_png(faces.images[i]),
                "label": int(label[i]),
                "code": faces.code[i],
                "row": faces.row[i],
                "black": black[i],
                "leaked": leaked[i],
            }

    return Contents(
        examples={
            name: functools.partial(examples, split)
            for split, name in enumerate(reading.SPLITS)
            if (faces.split == split).any()
        },
        counts=faces.class_counts(),
        found=(f"{faces.source}: {faces.md5_line()}",),
        warnings=faces.warnings(),
        complete=reading.is_complete(faces),
        metadata={"source": epath.Path(faces.source).name, "md5": faces.md5, "md5_known": faces.known},
    )


def _nothing_found(manual_dir: epath.Path) -> UserError:
    wanted = f"{', '.join(reading.CSV_NAMES)}, {reading.ARCHIVE} or train/<class>/"
    zips = sorted(path.name for path in manual_dir.iterdir() if path.suffix == ".zip")
    if zips:
        return UserError(f"{manual_dir} has none of {wanted}: unpack {zips[0]} there first")
    if (manual_dir / "train.csv").exists() or (manual_dir / "test.csv").exists():
        return UserError(f"{manual_dir} has only train.csv or test.csv, which lack test labels: needs {wanted}")
    return UserError(f"{manual_dir} has none of {wanted} (also looked in its folder fer2013/): {reading.WHERE}")
