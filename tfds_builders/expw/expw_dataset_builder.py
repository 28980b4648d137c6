"""TFDS builder of ExpW: faces in pictures from image search, seven expressions; the split is ours, by picture."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from fer_jax.errors import UserError
from fer_jax.parsing import LARGEST_PIXEL, numbers, read_text, whole_number
from tfds_builders.face_crops import Box, CropOptions, check_crop, cropped, face_features
from tfds_builders.layout import folder_of, root_of
from tfds_builders.listing import ALL, Item, Listing, files_below, nfc
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

LISTS = ("label.lst", "label/label.lst")
PHOTOS = ("image/origin", "origin", "image", "images")
FACES = 91_793
CODES = labels.CODES["expw"]
ROW = "friend_marry_67.jpg 0 62 98 202 166 68.36 3"


@dataclasses.dataclass(frozen=True)
class ExpwOptions(CropOptions):
    """
    Attributes:
        test: share of the pictures whose faces are the test split.
    """

    size: int = 224
    crop: str = "boxes"
    test: float = 0.1


VARIANTS = {crop: ExpwOptions(crop=crop) for crop in ("boxes", "faces")}


class Face(NamedTuple):
    """A row of the list; `box` is (x, y, width, height) in pixels of the picture."""

    picture: str
    number: int
    box: Box
    confidence: float
    code: int


class Builder(PictureBuilder):
    """ExpW in the order of its list. See README.md for the files and features."""

    HOMEPAGE = "http://mmlab.ie.cuhk.edu.hk/projects/socialrelation/index.html"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"give the folder that holds {LISTS[0]} and {PHOTOS[0]}/"
    VARIANTS = VARIANTS

    def fields(self) -> dict[str, Any]:
        numbers_ = {"code": np.int64, "face": np.int64, "subject": np.int64, "confidence": np.float32}
        return {**face_features(self.options, labels.classes(7)), **numbers_, "name": tfds.features.Text()}

    def check_options(self, given: Collection[str]) -> None:
        check_crop("expw", self.options, tuple(VARIANTS))
        if not 0 < self.options.test < 1:
            raise UserError(f"expw: option test={self.options.test} must be a share of the pictures, such as 0.1")

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        root = root_of(manual_dir, LISTS, "ExpW")
        path = next(root / name for name in LISTS if (root / name).exists())
        folder = folder_of(root_of(manual_dir, PHOTOS, "ExpW"), PHOTOS, "ExpW")
        there = files_below(folder)
        faces = read_faces(path, problems)
        picture_numbers = {name: number for number, name in enumerate(dict.fromkeys(face.picture for face in faces))}
        items: dict[str, list[Item]] = {"train": [], "test": []}
        for face in faces:
            if face.picture not in there:
                told = f"with its face {face.number} is in {path.name} and is not there: unpack its archive again"
                problems.gap(folder / face.picture, told)
            else:
                fields = {"code": face.code, "face": face.number, "confidence": face.confidence, "name": face.picture}
                fields["subject"] = picture_numbers[face.picture]
                label = labels.index("expw", face.code, 7)
                item = Item((there[face.picture],), label, fields, face.box)
                items["test" if in_test(face.picture, self.options.test) else "train"].append(item)
        left = len(there.keys() - picture_numbers)
        return Listing(
            items=items,
            found=(
                f"{path}: {len(faces):,} faces in {len(picture_numbers):,} pictures",
                f"{folder}: {len(there):,} files, {left:,} of them not in the list and not used",
            ),
            metadata={
                "protocol": f"no official split: a share of {self.options.test:g} of the pictures is the test split"
            },
            # Only the total is known, and it fits if the training split has what the test split lacks.
            expected={"train": {ALL: FACES - len(items["test"])}},
        )

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        example, notes = cropped(item.files[0], self.options, self.detector, box=item.crop)
        return {**example, "label": item.label, **item.fields}, notes


def in_test(picture: str, share: float) -> bool:
    """Whether a picture is in the test split: its name alone decides, so that no other copy or machine differs."""
    return int.from_bytes(hashlib.sha256(picture.encode()).digest()[:8]) < share * 2**64


def read_faces(path: pathlib.Path, problems: Problems) -> list[Face]:
    """Returns the faces of the list: picture, number, top, left, right, bottom, confidence of the box, code."""
    faces: dict[tuple[str, int], Face] = {}
    for line_number, line in enumerate(read_text(path, damaged="replace").splitlines(), start=1):
        where, words = f"{path}:{line_number}", line.split()
        if not words:
            continue
        values = numbers(words[-6:-1], LARGEST_PIXEL)
        number, code = (whole_number(words[i]) if len(words) == 8 else None for i in (1, -1))
        if number is None or not values:
            problems.mistake(where, f"is '{line.strip()[:60]}' where '{ROW}' is expected: get the list again")
            continue
        top, left, right, bottom, confidence = values
        face = Face(nfc(words[0]), number, (left, top, right - left, bottom - top), confidence, code or 0)
        if code not in CODES:
            problems.mistake(where, f"has the label {words[-1][:20]}, and codes are 0 to {max(CODES)}: correct it")
        elif face[:2] in faces:
            problems.mistake(where, f"names the face {number} of {words[0]} a second time: remove one of the rows")
        elif min(face.box[2:]) <= 0:
            problems.gap(where, f"has an empty box for the face {number} of {words[0]}: correct it")
        else:
            faces[face.picture, number] = face
    return list(faces.values())
