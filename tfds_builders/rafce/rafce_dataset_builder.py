"""TFDS builder of RAF-CE: faces from the internet, fourteen compound expressions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from tfds_builders.frames import RGB, check_frames, stored_frames
from tfds_builders.label_lists import read_labels
from tfds_builders.layout import file_of, folder_of, root_of
from tfds_builders.listing import ALL, Item, Listing
from tfds_builders.picture_builder import Options, PictureBuilder, picture_feature
from tfds_builders.problems import Problems
from tfds_builders.sequences import check_choice, pictures_in

LABELS, PARTITION = "RAFCE_emolabel.txt", "RAFCE_partition.txt"
NAME = re.compile(r"[^/\s]+\.jpg")
CODES = labels.COMPOUND_CODES["rafce"]
PICTURES = 4549


@dataclasses.dataclass(frozen=True)
class RafceOptions(Options):
    """
    Attributes:
        size: side of the stored pictures; those of another size are resized.
        test: which number of the partition is the test split, 1 or 2; the other one is validation.
    """

    size: int = 224
    test: int = 1


class Builder(PictureBuilder):
    """RAF-CE in the order of its label list. See README.md for the files and features."""

    HOMEPAGE = "http://www.whdeng.cn/RAF/model4.html"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"give the folder that holds {LABELS}, {PARTITION} and aligned/"
    VARIANTS = {"aligned": RafceOptions()}  # noqa: RUF012

    def fields(self) -> dict[str, Any]:
        f, side = tfds.features, self.options.size
        return {
            "image": picture_feature((side, side), RGB),
            "label": f.ClassLabel(names=list(CODES.values())),
            "code": np.int64,
            "name": f.Text(),
        }

    def check_options(self, given: Collection[str]) -> None:
        check_frames("rafce", 1, self.options.size, smallest=1)
        check_choice("rafce", "test", str(self.options.test), ("1", "2"))

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        root, test = root_of(manual_dir, [LABELS], "RAF-CE"), self.options.test
        faces = folder_of(root_of(manual_dir, ["aligned"], "RAF-CE"), ["aligned"], "RAF-CE")
        there = pictures_in(faces)
        path = root / LABELS
        partition_path = file_of(root, [PARTITION], "RAF-CE")
        codes = read_labels(path, NAME, list(map(str, CODES)), "0001.jpg 10", problems)
        partition = read_labels(partition_path, NAME, ("0", "1", "2"), "0001.jpg 0", problems)
        splits = {"0": "train", str(test): "test", str(3 - test): "validation"}
        items: dict[str, list[Item]] = {split: [] for split in ("train", "validation", "test")}
        for name, code in codes.items():
            file = f"{name.removesuffix('.jpg')}_aligned.jpg"
            if name not in partition:
                problems.mistake(path, f"has {name}, which {PARTITION} has not: get both lists again")
            elif file not in there:
                problems.gap(faces / file, "is listed and is not there: unpack its archive again")
            else:
                item = Item((there[file],), int(code), {"code": int(code), "name": name})
                items[splits[partition[name]]].append(item)
        unlabeled = len(partition.keys() - codes)
        others = sum(len(some) for split, some in items.items() if split != "train")
        return Listing(
            items={split: some for split, some in items.items() if some},
            found=(
                f"{path}: {len(codes):,} names",
                f"{partition_path}: {len(partition):,} names, {unlabeled:,} of them without a label",
            ),
            warnings=(
                f"{test} in {PARTITION} is read as the test split and {3 - test} as validation, but public programs "
                f"disagree: compare the notes that came with your copy; --option=test={3 - test} exchanges them",
            ),
            metadata={"protocol": "published partition; mean recall on test"},
            # Only the total is known, and it fits if the training split has what the others lack.
            expected={"train": {ALL: PICTURES - others}},
        )

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        (picture,), notes = stored_frames(item.files, None, self.options.size)
        return {"image": picture, "label": item.label, **item.fields}, notes
