"""TFDS builder of RAF-DB: faces from the internet, seven basic or eleven compound expressions."""

from __future__ import annotations

import dataclasses
import pathlib
import re

from etils import epath

from fer_jax import labels
from fer_jax.errors import UserError
from fer_jax.parsing import LARGEST_PIXEL, Unreadable, numbers, read_text
from tfds_builders.face_crops import Box
from tfds_builders.label_lists import read_labels
from tfds_builders.layout import folders_with, place_of, root_of
from tfds_builders.listing import (
    ALL,
    Item,
    Listing,
    check_unlisted,
    class_counts,
    pictures_in,
    unusual_counts,
)
from tfds_builders.options import Options
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

LIST_NAMES = ("EmoLabel/list_patition_label.txt", "EmoLabel/list_partition_label.txt")  # the first is the real one
ROW = re.compile(r"((?:train|test)_\d+\.jpg)\s+(\S+)")
COUNTS = {  # of the basic expressions, by code
    "train": (1290, 281, 717, 4772, 1982, 705, 2524),
    "test": (329, 74, 160, 1185, 478, 162, 680),
}
COMPOUND_COUNTS = {"train": {ALL: 3162}, "test": {ALL: 792}}
COMPOUND_CLASSES = (697, 266, 129, 163, 86, 738, 150, 560, 176, 841, 148)  # of both splits; unconfirmed: only a warning


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
    crop = "boxes"


class Builder(PictureBuilder):
    """RAF-DB in the order of its label list. See README.md for the files and features."""

    HOMEPAGE = "http://www.whdeng.cn/RAF/model1.html"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds basic/ or compound/, each with Image/ and EmoLabel/"
    VARIANTS = {
        "basic": RafOptions(),
        "compound": RafOptions(part="compound"),
        "basic_original": RafOptions(source="original", size=224),
        "compound_original": RafOptions(part="compound", source="original", size=224),
    }
    CHOICES = {"part": ("basic", "compound"), "source": ("aligned", "original")}
    FILE_SIZE = (100, 100)
    AS_IS = "aligned"

    @property
    def classes(self) -> tuple[str, ...]:
        return labels.classes(7) if self.options.part == "basic" else tuple(labels.COMPOUND_CODES["rafdb"].values())

    def label(self, code: labels.Code) -> int:
        return super().label(code) if self.options.part == "basic" else int(code) - 1

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        part, source = self.options.part, self.options.source
        try:
            root = root_of(manual_dir, [f"{part}/{name}" for name in LIST_NAMES], f"RAF-DB ({part})") / part
        except UserError as error:
            raise _about_flat(manual_dir) or error from None
        list_path, folder = place_of(root, LIST_NAMES, "RAF-DB"), place_of(root, [f"Image/{source}"], "RAF-DB")
        images = pictures_in(folder)
        rows = read_labels(list_path, ROW, range(1, len(self.classes) + 1), "train_00001.jpg 5", problems)
        items: dict[str, list[Item]] = {split: [] for split in COUNTS}
        # The list names originals.
        names = {name: name.replace(".jpg", "_aligned.jpg") if self.as_is() else name for name in rows}
        for name, code in rows.items():
            if names[name] not in images:
                problems.gap(folder / names[name], "is listed and is not there")
                continue
            box = None
            if not self.as_is():
                box = _box(root / "Annotation" / "boundingbox" / name.replace(".jpg", "_boundingbox.txt"), problems)
                if box is None:
                    continue
            items[name.partition("_")[0]].append(self.item(images[names[name]], int(code), box, name=name))
        check_unlisted(images, names.values(), list_path.name, problems)
        warnings = []
        if part == "compound":
            listed = class_counts((item.label for some in items.values() for item in some), self.classes)
            expected = dict(zip(self.classes, COMPOUND_CLASSES, strict=True))
            warnings = unusual_counts({"both splits": listed}, {"both splits": expected})
        return Listing(
            items=items,
            found=(f"{list_path}: {len(rows):,} names", f"{folder}: {len(images):,} files"),
            warnings=tuple(warnings),
            expected=self.published(COUNTS) if part == "basic" else COMPOUND_COUNTS,
        )


def _box(path: pathlib.Path, problems: Problems) -> Box | None:
    """Returns (x, y, width, height) in pixels of the original; None, and a gap, if there is none."""
    try:
        found = numbers(read_text(path).split(), LARGEST_PIXEL)
    except Unreadable:
        found = []
    if len(found) != 4:
        problems.gap(path, "is not there, or does not hold four numbers: unpack boundingbox.zip again")
        return None
    left, top, right, bottom = found
    return left, top, right - left, bottom - top


def _about_flat(manual_dir: epath.Path) -> UserError | None:
    """Returns what to do with a public re-arrangement of RAF-DB, <split>/<code>/*.jpg; None if it is not there."""
    for folder in folders_with(manual_dir, "train".__eq__):
        if (folder / "train" / "1").is_dir():
            named = ", ".join(f"{code} to {name}" for code, name in labels.CODES["rafdb"].items())
            return UserError(
                f"{folder} holds train/1/, not the original tree of RAF-DB: rename its folders ({named}) and read it "
                f"with `python -m tfds_builders build image_folder/rafdb --manual_dir={folder}`"
            )
    return None
