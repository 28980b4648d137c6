"""TFDS builder of CAER-S: frames of television series with their surroundings, seven expressions."""

from __future__ import annotations

import re

from etils import epath

from fer_jax import labels
from tfds_builders.label_lists import read_rows
from tfds_builders.layout import place_of, root_of
from tfds_builders.listing import Item, Listing, pictures_in
from tfds_builders.options import CropOptions
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

CODES = tuple(map(str, labels.CODES["caer_s"]))  # the names of the folders
COUNTS = {  # of the pictures with a box, by code
    "train": (6856, 6890, 6873, 6814, 6799, 6910, 6824),
    "test": (2988, 2980, 2972, 2990, 2985, 2983, 2970),
}
# A picture, a number that is not used, and the corners of the face's box.
ROW = re.compile(r"([^,]+),\s*\d+" + r",\s*(-?[\d.]+)" * 4)
EXAMPLE = "test/Sad/0157.png,5,191,109,293,211"


class Builder(PictureBuilder):
    """CAER-S, sorted by class and name. See README.md for the files and features."""

    HOMEPAGE = "https://caer-dataset.github.io"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds train/ and test/, each with Anger/ ... Surprise/"
    VARIANTS = {crop: CropOptions(size=224, crop=crop) for crop in ("boxes", "faces", "whole")}
    CHOICES = {"crop": tuple(VARIANTS)}

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        root = root_of(manual_dir, [f"train/{CODES[0]}"], "CAER-S")
        annotated = self.options.crop == "boxes"
        lists = root_of(manual_dir, ["train.txt"], "the boxes of CAER-S") if annotated else root
        items: dict[str, list[Item]] = {}
        found = []
        for split in COUNTS:
            there = {
                f"{split}/{code}/{name}": path
                for code in CODES
                for name, path in sorted(pictures_in(place_of(root, [f"{split}/{code}"], "CAER-S")).items())
            }
            found.append(f"{root / split}: {len(there):,} pictures")
            boxes = {}
            if annotated:
                path = place_of(lists, [f"{split}.txt"], "the boxes of CAER-S")
                for where, match in read_rows(path, ROW, EXAMPLE, problems):
                    if match[1] in boxes:
                        problems.mistake(where, f"names {match[1]} a second time: remove one of the rows")
                    left, top, right, bottom = map(float, match.groups()[1:])
                    boxes[match[1]] = (left, top, right - left, bottom - top)
                unused = len(there.keys() - boxes)
                found.append(f"{path}: {len(boxes):,} boxes; {unused:,} pictures without one are not used")
                for name in sorted(boxes.keys() - there):
                    problems.gap(root / name, f"is in {path.name} and is not there")
            items[split] = [
                self.item(path, name.split("/")[1], boxes.get(name), name=name)
                for name, path in there.items()
                if not annotated or name in boxes
            ]
        return Listing(items=items, found=tuple(found), expected=self.published(COUNTS) if annotated else {})
