"""TFDS builder of FER+: the pictures of FER-2013 with ten annotators' votes, from one or both vote files."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from fer_jax.data.targets.votes import ferplus_targets
from fer_jax.errors import UserError
from tfds_builders.fer2013 import folders, reading
from tfds_builders.ferplus import votes
from tfds_builders.manual import Contents, ManualBuilder, encode_png


class Builder(ManualBuilder):
    """Every row of FER-2013's CSV with its votes. See README.md for the files and features.

    No label rule is applied here: `fer_jax.data.targets.votes` turns votes into targets when they are read.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS's own convention)
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put FER-2013's fer2013.csv and FER+'s fer2013new.csv (and data/FER2013*/label.csv) into the "
        f"folder; {votes.WHERE}. For fer2013.csv: {reading.WHERE}."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        counts = tfds.features.Tensor(shape=(len(labels.FERPLUS_VOTES),), dtype=np.int64)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(48, 48, 1), encoding_format="png"),
                    "votes_new": counts,
                    "has_new": np.bool_,
                    "votes_label": counts,
                    "has_label": np.bool_,
                    "fer2013_label": tfds.features.ClassLabel(names=list(labels.classes(7))),
                    "code": np.int64,
                    "row": np.int64,
                    "black": np.bool_,
                    "leaked": np.bool_,
                }
            ),
            homepage="https://github.com/microsoft/FERPlus",
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def read(self, manual_dir: epath.Path) -> Contents:
        """Reads FER-2013's CSV and the vote files, and joins them by row."""
        new_path, label_paths = votes.find_new(manual_dir), votes.find_labels(manual_dir)
        if new_path is None and label_paths is None:
            raise UserError(
                f"{manual_dir} has neither {votes.NEW_CSV} nor FER2013Train/{votes.LABEL_CSV} (also looked "
                f"in data/ and FERPlus/): {votes.WHERE}"
            )
        faces = _faces(manual_dir, self.allow_counts)
        new = None if new_path is None else votes.read_new(new_path, faces.split)
        label = None
        if label_paths is not None:
            names = None if new is None else new.names
            label = votes.read_labels(label_paths, faces.split, names, self.allow_counts)
        return _contents(faces, {str(new_path): new, f"{(label_paths or ('',))[0]} and its like": label})


def _faces(manual_dir: epath.Path, allow_counts: bool) -> reading.Faces:
    path = reading.find_csv(manual_dir)
    if path is None:
        if folders.find_folder(manual_dir) is not None:
            raise UserError(
                f"{manual_dir} has a folder version of FER-2013, whose pictures have no row numbers to join "
                f"votes by: needs fer2013.csv; {reading.WHERE}"
            )
        raise UserError(f"{manual_dir} has none of {', '.join(reading.CSV_NAMES)}, {reading.ARCHIVE}: {reading.WHERE}")
    faces = reading.read_csv(path)
    if not allow_counts:
        reading.check_counts(faces)
    return faces


def _contents(faces: reading.Faces, files: dict[str, votes.Votes | None]) -> Contents:
    new, label = files.values()
    absent = votes.Votes(np.zeros((len(faces.code), 10), np.int64), np.zeros(len(faces.code), bool), [], 0)
    by_new, by_label = new or absent, label or absent
    fer2013_label = labels.index_table("fer2013", num_classes=7)[faces.code]
    black, leaked = faces.black, faces.leaked

    def examples(split: int) -> Iterator[dict[str, Any]]:
        for i in np.flatnonzero(faces.split == split):
            yield {
                "image": encode_png(faces.images[i]),
                "votes_new": by_new.counts[i],
                "has_new": by_new.present[i],
                "votes_label": by_label.counts[i],
                "has_label": by_label.present[i],
                "fer2013_label": int(fer2013_label[i]),
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
        found=(
            f"{faces.source}: {faces.md5_line()}",
            *(f"{path}: {_described(table, faces.split)}" for path, table in files.items() if table is not None),
        ),
        warnings=faces.warnings(),
        complete=reading.is_complete(faces) and (label is None or label.lines == sum(votes.LABEL_COUNTS)),
        metadata={
            "source": epath.Path(faces.source).name,
            "md5": faces.md5,
            "md5_known": faces.known,
            "vote_files": [name for name, table in (("new", new), ("label", label)) if table is not None],
        },
    )


def _described(table: votes.Votes, split: np.ndarray) -> str:
    keep, _ = ferplus_targets(table.counts, "majority")
    kept = " / ".join(f"{np.count_nonzero(keep & (split == code)):,}" for code in range(len(reading.SPLITS)))
    return f"{table.lines:,} rows; the majority rule keeps {kept}"
