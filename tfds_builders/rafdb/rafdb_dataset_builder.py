"""TFDS builder of RAF-DB: faces from the internet, seven basic or eleven compound expressions."""

from __future__ import annotations

import dataclasses
import io
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from fer_jax.errors import UserError
from fer_jax.faces.crops import crop_box, transform_points
from fer_jax.faces.pictures import BadPicture, encoded, pixels
from tfds_builders.label_lists import read_labels
from tfds_builders.layout import file_of, folder_of, folders_with, root_of
from tfds_builders.listing import Item, Listing, check_unlisted
from tfds_builders.picture_builder import Options, PictureBuilder, picture_feature
from tfds_builders.problems import Problems
from tfds_builders.rafdb import annotations
from tfds_builders.sequences import check_choice, check_crop, pictures_in, refuse_idle

ALIGNED_SIZE = (100, 100)
LIST_NAMES = ("EmoLabel/list_patition_label.txt", "EmoLabel/list_partition_label.txt")  # the first is the real one
SPLITS = ("train", "test")
COUNTS = {  # by code
    "basic": {
        "train": (1290, 281, 717, 4772, 1982, 705, 2524),
        "test": (329, 74, 160, 1185, 478, 162, 680),
    },
    "compound": {},  # only the totals of both splits together are known: 3,162 and 792
}


@dataclasses.dataclass(frozen=True)
class RafOptions(Options):
    """
    Attributes:
        part: 'basic' or 'compound'.
        source: 'aligned', the 100x100 faces of the archive, stored as they are; or 'original', cropped by their box.
        margin: of a crop, as a share of the box on each side.
    """

    part: str = "basic"
    source: str = "aligned"
    margin: float = 0.0


VARIANTS = {
    "basic": RafOptions(),
    "compound": RafOptions(part="compound"),
    "basic_original": RafOptions(source="original", size=224),
    "compound_original": RafOptions(part="compound", source="original", size=224),
}


class Builder(PictureBuilder):
    """RAF-DB in the order of its label list. See README.md for the files and features."""

    HOMEPAGE = "http://www.whdeng.cn/RAF/model1.html"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds basic/ or compound/, each with Image/ and EmoLabel/"
    VARIANTS = VARIANTS

    def fields(self) -> dict[str, Any]:
        options, f = self.options, tfds.features
        size = ALIGNED_SIZE if options.source == "aligned" else (options.size, options.size)
        return {
            "image": picture_feature(size, 3),
            "label": f.ClassLabel(names=list(_classes(options.part))),
            "code": np.int64,
            "name": f.Text(),
            "points": f.Tensor(shape=(5, 2), dtype=np.float32),
            "gender": np.int64,
            "race": np.int64,
            "age": np.int64,
        }

    def check_options(self, given: Collection[str]) -> None:
        check_choice("rafdb", "part", self.options.part, COUNTS)
        check_choice("rafdb", "source", self.options.source, ("aligned", "original"))
        if self.options.source == "original":
            check_crop("rafdb", self.options)
        else:
            refuse_idle("rafdb", given, ("size", "margin"), "the aligned faces, which are stored as they are")

    def crop(self) -> dict[str, Any]:
        return {"by": "box", "margin": self.options.margin} if self.options.source == "original" else {}

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        options = self.options
        try:
            root = root_of(manual_dir, [f"{options.part}/{name}" for name in LIST_NAMES], f"RAF-DB ({options.part})")
        except UserError as error:
            raise _about_flat(manual_dir) or error from None
        root = root / options.part
        list_path = file_of(root, LIST_NAMES, "RAF-DB")
        images = pictures_in(folder_of(root, [f"Image/{options.source}"], "RAF-DB"))
        known = list(map(str, _codes(options.part)))
        rows = read_labels(list_path, annotations.NAME, known, "train_00001.jpg 5", problems)
        items: dict[str, list[Item]] = {split: [] for split in SPLITS}
        names = {}
        for name, code in rows.items():
            names[name] = file = _file_name(name, options.source)
            if file not in images:
                problems.gap(list_path.parent.parent / "Image" / options.source / file, "is listed and is not there")
                continue
            if (item := self._item(root, images[file], name, int(code), problems)) is not None:
                items[name.partition("_")[0]].append(item)
        check_unlisted(images, names.values(), list_path.name, problems)
        return Listing(
            items={split: some for split, some in items.items() if some},
            found=(f"{list_path}: {len(rows):,} names", f"{root / 'Image' / options.source}: {len(images):,} files"),
            metadata={"protocol": "fixed split; the paper's score is the mean of the confusion's diagonal"},
            expected=_expected(options.part),
        )

    def _item(self, root: pathlib.Path, path: str, name: str, code: int, problems: Problems) -> Item | None:
        stem = name.rsplit(".", 1)[0]
        points, attributes = annotations.read_manual(root / "Annotation" / "manual", stem, problems)
        crop = None
        if self.options.source == "original":
            crop = annotations.read_box(root / "Annotation" / "boundingbox", stem, problems)
            if crop is None:
                return None
        fields = {"code": code, "name": name, "points": points, **attributes}
        return Item((path,), label=_label(self.options.part, code), fields=fields, crop=crop)

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        if self.options.source == "aligned":
            example, notes = super().encode(item)
            return {**example, "points": np.full((5, 2), np.nan, np.float32)}, notes  # theirs are the photo's
        photo, notes = pixels(item.files[0], self.CHANNELS)
        height, width = photo.shape[:2]
        left, top, right, bottom = item.crop
        if right <= 0 or bottom <= 0 or left >= width or top >= height or right <= left or bottom <= top:
            raise BadPicture(f"has {width}x{height} pixels, and its box {item.crop} is outside: correct the box")
        box = (left, top, right - left, bottom - top)
        face, matrix = crop_box(photo, box, size=self.options.size, margin=self.options.margin)
        points = transform_points(item.fields["points"], matrix).astype(np.float32)
        fields = {**item.fields, "points": points}
        return {"image": io.BytesIO(encoded(face, "JPEG")), "label": item.label, **fields}, notes


def _about_flat(manual_dir: epath.Path) -> UserError | None:
    """Returns what to do with a public re-arrangement of RAF-DB, <split>/<code>/*.jpg; None if it is not there."""
    for folder in folders_with(manual_dir, lambda name: name == "train"):
        if (pathlib.Path(folder) / "train" / "1").is_dir():
            named = ", ".join(f"{code} to {name}" for code, name in labels.CODES["rafdb"].items())
            return UserError(
                f"{folder} holds train/1/, not the original tree of RAF-DB: rename its folders ({named}) and read it "
                f"with `python -m tfds_builders build image_folder/rafdb --manual_dir={folder}`"
            )
    return None


def _classes(part: str) -> tuple[str, ...]:
    return labels.classes(7) if part == "basic" else tuple(labels.COMPOUND_CODES["rafdb"].values())


def _codes(part: str) -> range:
    return range(1, len(_classes(part)) + 1)


def _label(part: str, code: int) -> int:
    return labels.index("rafdb", code, 7) if part == "basic" else code - 1


def _file_name(name: str, source: str) -> str:
    """'train_00001.jpg' -> 'train_00001_aligned.jpg': the list names originals."""
    return name.replace(".jpg", "_aligned.jpg") if source == "aligned" else name


def _expected(part: str) -> Mapping[str, Mapping[str, int]]:
    """The published number of each class."""
    names = _classes(part)
    counts = {}
    for split, numbers in COUNTS[part].items():
        by_label = {names[_label(part, code)]: n for code, n in zip(_codes(part), numbers, strict=True)}
        counts[split] = {name: by_label[name] for name in names}
    return counts
