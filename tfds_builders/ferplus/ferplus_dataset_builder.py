"""TFDS builder of FER+: the pictures of FER-2013 with ten annotators' votes, from one or both vote files."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from fer_jax.data.targets.votes import ferplus_targets
from fer_jax.errors import UserError
from tfds_builders.fer2013 import fer2013_dataset_builder as fer2013
from tfds_builders.fer2013 import folders, reading
from tfds_builders.ferplus import votes
from tfds_builders.listing import Listing
from tfds_builders.problems import Problems


class Builder(fer2013.Builder):
    """Every row of FER-2013's CSV with its votes. See README.md for the files and features.

    No label rule is applied here: `fer_jax.data.targets.votes` turns votes into targets when they are read.
    """

    HOMEPAGE = "https://github.com/microsoft/FERPlus"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put FER-2013's fer2013.csv and FER+'s fer2013new.csv (and data/FER2013*/label.csv) into the "
        f"folder; {votes.WHERE}. For fer2013.csv: {reading.WHERE}."
    )

    def fields(self) -> dict[str, Any]:
        fields = super().fields()
        counts = tfds.features.Tensor(shape=(len(labels.FERPLUS_VOTES),), dtype=np.int64)
        fields["fer2013_label"] = fields.pop("label")
        return {**fields, "votes_new": counts, "has_new": np.bool_, "votes_label": counts, "has_label": np.bool_}

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        """Reads FER-2013's CSV and the vote files, and joins them by row."""
        new_path, label_paths = votes.find_new(manual_dir), votes.find_labels(manual_dir)
        if new_path is None:
            raise UserError(
                f"{manual_dir} has no {votes.NEW_CSV} (also looked in FERPlus/ and fer2013/): {votes.WHERE}"
            )
        path = reading.find_csv(manual_dir)
        if path is None:
            wanted = f"{', '.join(reading.CSV_NAMES)}, {reading.ARCHIVE}"
            if folders.find_folder(manual_dir) is not None:
                wanted += " (the pictures of a folder version have no row numbers to join votes by)"
            raise UserError(f"{manual_dir} has none of {wanted}: {reading.WHERE}")
        faces = reading.read_csv(path)
        new = votes.read_new(new_path, faces.split)
        tables = {"new": new}
        if label_paths is not None:
            tables["label"] = votes.read_labels(label_paths, faces.split, new.names, self.allow_counts)
        label = tables.get("label", votes.Votes(np.zeros_like(new.counts), np.zeros_like(new.present), []))
        listing = faces.listing(
            fer2013_label=labels.index_table("fer2013", num_classes=7)[faces.code],
            votes_new=new.counts,
            has_new=new.present,
            votes_label=label.counts,
            has_label=label.present,
        )
        files = {"new": str(new_path), "label": f"{(label_paths or ('',))[0]} and its like"}
        found = (f"{files[name]}: {_described(table, faces.split)}" for name, table in tables.items())
        lacking = label_paths is not None and np.count_nonzero(label.present) != sum(votes.LABEL_COUNTS)
        metadata = {"complete": False} if lacking else {}
        return dataclasses.replace(listing, found=(*listing.found, *found), metadata=metadata)


def _described(table: votes.Votes, split: np.ndarray) -> str:
    keep, _ = ferplus_targets(table.counts, "majority")
    kept = " / ".join(f"{np.count_nonzero(keep & (split == code)):,}" for code in range(len(reading.SPLITS)))
    return f"{np.count_nonzero(table.present):,} rows; the majority rule keeps {kept}"
