"""TFDS builder of RAF-CE: faces from the internet, fourteen compound expressions."""

from __future__ import annotations

import dataclasses
import re

from etils import epath

from fer_jax import labels
from tfds_builders.label_lists import read_labels
from tfds_builders.layout import find, place_of, root_of
from tfds_builders.listing import ALL, Item, Listing, pictures_in
from tfds_builders.options import Options
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

LABELS, PARTITION = "RAFCE_emolabel.txt", "RAFCE_partition.txt"
ROW = re.compile(r"([^/\s]+\.jpg)\s+(\S+)")
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
    VARIANTS = {"aligned": RafceOptions()}
    CHOICES = {"test": (1, 2)}
    CLASSES = tuple(CODES.values())

    def label(self, code: labels.Code) -> int:
        return int(code)

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        root, test = root_of(manual_dir, [LABELS], "RAF-CE"), self.options.test
        faces = find(manual_dir, ["aligned"], "RAF-CE")
        there = pictures_in(faces)
        path, partition_path = root / LABELS, place_of(root, [PARTITION], "RAF-CE")
        codes = read_labels(path, ROW, CODES, "0001.jpg 10", problems)
        partition = read_labels(partition_path, ROW, range(3), "0001.jpg 0", problems)
        splits = {"0": "train", str(test): "test", str(3 - test): "validation"}
        items: dict[str, list[Item]] = {split: [] for split in ("train", "validation", "test")}
        for name, code in codes.items():
            file = f"{name.removesuffix('.jpg')}_aligned.jpg"
            if name not in partition:
                problems.mistake(path, f"lists {name}, which {PARTITION} lacks: get both lists again")
            elif file not in there:
                problems.gap(faces / file, "is listed and is not there: unpack its archive again")
            else:
                items[splits[partition[name]]].append(self.item(there[file], int(code), name=name))
        unlabeled = len(partition.keys() - codes)
        others = sum(len(some) for split, some in items.items() if split != "train")
        return Listing(
            items=items,
            found=(
                f"{path}: {len(codes):,} names",
                f"{partition_path}: {len(partition):,} names, {unlabeled:,} of them without a label",
            ),
            warnings=(
                f"{test} in {PARTITION} is read as the test split and {3 - test} as validation, but public programs "
                f"disagree: compare the notes that came with your copy; --option=test={3 - test} exchanges them",
            ),
            # Only the total is known, and it fits if the training split has what the others lack.
            expected={"train": {ALL: PICTURES - others}},
        )
