"""TFDS builder of ExpW: faces in pictures from image search, seven expressions; the split is ours, by picture."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import Any

import numpy as np
from etils import epath

from fer_jax import labels
from fer_jax.errors import UserError
from tfds_builders.label_lists import read_rows
from tfds_builders.layout import find
from tfds_builders.listing import ALL, Item, Listing, files_below, nfc
from tfds_builders.options import CropOptions
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

LISTS = ("label.lst", "label/label.lst")
PHOTOS = ("image/origin", "origin", "image", "images")
FACES = 91_793
CODES = labels.CODES["expw"]
ROW = re.compile(r"(\S+)\s+(\d+)" + r"\s+(-?[\d.]+)" * 5 + r"\s+(-?\d+)")  # top, left, right, bottom, confidence
EXAMPLE = "friend_marry_67.jpg 0 62 98 202 166 68.36 3"


@dataclasses.dataclass(frozen=True)
class ExpwOptions(CropOptions):
    """
    Attributes:
        test: share of the pictures whose faces are the test split.
    """

    size: int = 224
    crop: str = "boxes"
    test: float = 0.1


class Builder(PictureBuilder):
    """ExpW in the order of its list. See README.md for the files and features."""

    HOMEPAGE = "http://mmlab.ie.cuhk.edu.hk/projects/socialrelation/index.html"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"give the folder that holds {LISTS[0]} and {PHOTOS[0]}/"
    VARIANTS = {crop: ExpwOptions(crop=crop) for crop in ("boxes", "faces")}
    CHOICES = {"crop": tuple(VARIANTS)}

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "face": np.int64, "subject": np.int64, "confidence": np.float32}

    def check_options(self) -> None:
        super().check_options()
        if not 0 < self.options.test < 1:
            raise UserError(f"expw: option test={self.options.test} must be a share of the pictures, such as 0.1")

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        path, folder = find(manual_dir, LISTS, "ExpW"), find(manual_dir, PHOTOS, "ExpW")
        there = files_below(folder)
        items: dict[str, list[Item]] = {"train": [], "test": []}
        seen: set[tuple[str, str]] = set()
        pictures: dict[str, int] = {}  # the number of each, which stands for the people in it
        for where, match in read_rows(path, ROW, EXAMPLE, problems):
            picture, face, code = nfc(match[1]), match[2], int(match[8])
            subject = pictures.setdefault(picture, len(pictures))
            top, left, right, bottom, confidence = map(float, match.groups()[2:7])
            if code not in CODES:
                problems.mistake(where, f"has the label {code}, and codes are 0 to {max(CODES)}: correct it")
            elif (picture, face) in seen:
                problems.mistake(where, f"names the face {face} of {picture} a second time: remove one of the rows")
            elif picture not in there:
                told = f"with its face {face} is in {path.name} and is not there: unpack its archive again"
                problems.gap(folder / picture, told)
            else:
                fields = {"face": int(face), "subject": subject, "confidence": confidence, "name": picture}
                item = self.item(there[picture], code, (left, top, right - left, bottom - top), **fields)
                items["test" if in_test(picture, self.options.test) else "train"].append(item)
            seen.add((picture, face))
        left_out = len(there.keys() - pictures)
        return Listing(
            items=items,
            found=(
                f"{path}: {len(seen):,} faces in {len(pictures):,} pictures",
                f"{folder}: {len(there):,} files, {left_out:,} of them not in the list and not used",
            ),
            # Only the total is known, and it fits if the training split has what the test split lacks.
            expected={"train": {ALL: FACES - len(items["test"])}},
        )


def in_test(picture: str, share: float) -> bool:
    """Whether a picture is in the test split: its name alone decides, so that no other copy or machine differs."""
    return int.from_bytes(hashlib.sha256(picture.encode()).digest()[:8]) < share * 2**64
