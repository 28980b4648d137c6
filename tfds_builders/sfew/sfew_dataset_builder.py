"""TFDS builder of SFEW: single frames from movies, seven expressions."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from tfds_builders.face_crops import CropOptions, check_crop, cropped, face_features
from tfds_builders.layout import folder_of, root_of, undoubled
from tfds_builders.listing import ALL, Item, Listing, by_class
from tfds_builders.picture_builder import PictureBuilder, picture_feature
from tfds_builders.problems import Problems
from tfds_builders.sequences import folders_in, pictures_in

SPLITS = ("train", "validation")
ALIGNED = {  # the first that exists is read: the validation faces were aligned again
    "train": ("Train_Aligned_Faces",),
    "validation": ("Val_Aligned_Faces_new", "Val_Aligned_Faces"),
}
FULL = {"train": "Train", "validation": "Val"}
TESTS = ("Test", "Test_Aligned_Faces")
ALIGNED_SIZE = (181, 143)  # height, width
CODES = tuple(map(str, labels.CODES["sfew"]))  # the names of the folders
COUNTS = {  # of the full frames, by code
    "train": (178, 66, 98, 198, 150, 172, 96),
    "validation": (77, 23, 47, 73, 86, 73, 57),
}
ALIGNED_TOTALS = {"train": 891, "validation": 431}  # not known by class
CROPS = ("aligned", "faces")


@dataclasses.dataclass(frozen=True)
class SfewOptions(CropOptions):
    """
    Attributes:
        crop: 'aligned', the organizers' faces, stored as they are; or 'faces', found in the full frames.
    """


VARIANTS = {"aligned": SfewOptions(crop="aligned"), "full": SfewOptions(size=224)}


class Builder(PictureBuilder):
    """SFEW by the names of its files. See README.md for the files and features."""

    HOMEPAGE = "https://cs.anu.edu.au/few/AFEW.html"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds Train/ and Val/"
    VARIANTS = VARIANTS

    def fields(self) -> dict[str, Any]:
        f, features = tfds.features, face_features(self.options, labels.classes(7))
        if self.options.crop == "aligned":
            features["image"] = picture_feature(ALIGNED_SIZE, 3)
        return {**features, "code": f.Text(), "name": f.Text()}

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        options = self.options
        aligned = options.crop == "aligned"
        check_crop("sfew", options, CROPS, as_is=("aligned",))
        items, found, seen = {}, [], {}
        for split in SPLITS:
            folder = _aligned_folder(manual_dir, split) if aligned else _full_folder(manual_dir, split)
            items[split] = _items(folder, seen, problems)
            found.append(f"{folder}: {len(items[split]):,} pictures")
        start = pathlib.Path(manual_dir)
        found += [f"{start / name}: not used, it has no labels" for name in TESTS if (start / name).is_dir()]
        if aligned:
            expected = {split: {ALL: n} for split, n in ALIGNED_TOTALS.items()}
        else:
            expected = {split: by_class("sfew", CODES, n, labels.classes(7)) for split, n in COUNTS.items()}
        return Listing(
            items=items,
            found=tuple(found),
            metadata={
                "protocol": "train on train, accuracy on validation, which serves as the test: the labels of the test "
                "were held back"
            },
            expected=expected,
        )

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        if self.options.crop == "aligned":
            return super().encode(item)
        example, notes = cropped(item.files[0], self.options, self.detector)
        return {**example, "label": item.label, **item.fields}, notes


def _aligned_folder(manual_dir: os.PathLike[str] | str, split: str) -> pathlib.Path:
    """Returns the folder that holds the classes; the newer alignment if both exist."""
    names = ALIGNED[split]
    folder = folder_of(root_of(manual_dir, names, "SFEW (aligned)"), names, "SFEW (aligned)")
    if not folders_in(folder, "|".join(CODES)):
        # The newer archive's folder may hold one of the older name.
        inner = [path for name, path in folders_in(folder).items() if name in names]
        folder = undoubled(pathlib.Path(inner[0])) if inner else folder
    return folder


def _full_folder(manual_dir: os.PathLike[str] | str, split: str) -> pathlib.Path:
    name = FULL[split]
    return root_of(manual_dir, [f"{name}/{CODES[0]}"], "SFEW (full frames)") / name


def _items(folder: pathlib.Path, seen: dict[str, str], problems: Problems) -> list[Item]:
    """Returns the pictures of every class, by name; `seen` has the place of every picture until now, by name."""
    items = []
    for code in CODES:
        for name, path in pictures_in(folder_of(folder, [code, code.lower()], "SFEW")).items():
            if name in seen:
                problems.mistake(path, f"has the same name as {seen[name]}: remove one of them")
                continue
            seen[name] = path
            items.append(Item((path,), labels.index("sfew", code, 7), {"code": code, "name": name}))
    return sorted(items, key=lambda item: item.fields["name"])
