"""TFDS builder of CAER-S: frames of television series with their surroundings, seven expressions."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from tfds_builders.caer_s.boxes import read_boxes
from tfds_builders.face_crops import CropOptions, check_crop, cropped, face_features
from tfds_builders.layout import file_of, folder_of, root_of
from tfds_builders.listing import Item, Listing, by_class
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems
from tfds_builders.sequences import pictures_in

SPLITS = ("train", "test")
CODES = tuple(map(str, labels.CODES["caer_s"]))  # the names of the folders
COUNTS = {  # of the pictures with a box, by code
    "train": (6856, 6890, 6873, 6814, 6799, 6910, 6824),
    "test": (2988, 2980, 2972, 2990, 2985, 2983, 2970),
}
VARIANTS = {crop: CropOptions(size=224, crop=crop) for crop in ("boxes", "faces", "whole")}


class Builder(PictureBuilder):
    """CAER-S, sorted by class and name. See README.md for the files and features."""

    HOMEPAGE = "https://caer-dataset.github.io"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds train/ and test/, each with Anger/ ... Surprise/"
    VARIANTS = VARIANTS

    def fields(self) -> dict[str, Any]:
        names = {"code": tfds.features.Text(), "name": tfds.features.Text()}
        return {**face_features(self.options, labels.classes(7)), **names}

    def check_options(self, given: Collection[str]) -> None:
        check_crop("caer_s", self.options, tuple(VARIANTS))

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        root = root_of(manual_dir, [f"train/{CODES[0]}"], "CAER-S")
        annotated = self.options.crop == "boxes"
        lists = root_of(manual_dir, ["train.txt"], "the boxes of CAER-S") if annotated else root
        items, found = {}, []
        for split in SPLITS:
            there = _pictures(root, split)
            found.append(f"{root / split}: {len(there):,} pictures")
            boxes = {}
            if annotated:
                path = file_of(lists, [f"{split}.txt"], "the boxes of CAER-S")
                boxes = read_boxes(path, problems)
                left = len(there.keys() - boxes)
                found.append(f"{path}: {len(boxes):,} boxes; {left:,} pictures without one are not used")
                for name in sorted(boxes.keys() - there):
                    problems.gap(root / name, f"is in {path.name} and is not there")
            items[split] = [
                Item((path,), _label(name), {"code": name.split("/")[1], "name": name}, boxes.get(name))
                for name, path in there.items()
                if not annotated or name in boxes
            ]
        published = {split: by_class("caer_s", CODES, n, self.classes) for split, n in COUNTS.items()}
        return Listing(
            items=items,
            found=tuple(found),
            metadata={"protocol": "fixed split; accuracy on test"},
            expected=published if annotated else {},
        )

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        example, notes = cropped(item.files[0], self.options, self.detector, box=item.crop)
        return {**example, "label": item.label, **item.fields}, notes


def _pictures(root: pathlib.Path, split: str) -> Mapping[str, str]:
    """Returns 'test/Sad/0157.png' -> path of the pictures of every class."""
    folders = {code: folder_of(root, [f"{split}/{code}"], "CAER-S") for code in CODES}
    return {
        f"{split}/{c}/{name}": path
        for c, folder in folders.items()
        for name, path in sorted(pictures_in(folder).items())
    }


def _label(name: str) -> int:
    return labels.index("caer_s", name.split("/")[1], 7)
