"""TFDS builder of AffectNet: about 290,000 faces from the internet with expression, valence and arousal."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from fer_jax.errors import UserError
from fer_jax.faces.alignment import crop_box, transform_points
from fer_jax.faces.pictures import BadPicture, copied, is_picture, pixels
from tfds_builders.affectnet import rows as reading
from tfds_builders.affectnet.rows import Row
from tfds_builders.face_crops import check_box, stored
from tfds_builders.layout import place_of, root_of
from tfds_builders.listing import Item, Listing
from tfds_builders.options import Options
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

CROPPED = 224  # side of the pictures of the newer release
RELEASES = {  # files that identify each
    "csv": ("Manually_Annotated_file_lists/training.csv", "training.csv"),
    "npy": ("train_set/annotations",),
}
KINDS = ("val", "aro", "lnd")  # of files beside a picture of the newer release
PHOTOS = (
    *("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images"),
    *("Manually_Annotated_compressed/Manually_Annotated_Images", "Manually_Annotated_compressed", "Manually_Annotated"),
)
COUNTS = {  # by code, 0 to 7
    "train": (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750),
    "validation": (500,) * 8,
}
OUTSIDE = 1 / 3  # with a larger share of its landmarks outside of the picture, all of them are stored as NaN


@dataclasses.dataclass(frozen=True)
class AffectNetOptions(Options):
    """
    Attributes:
        classes: 8, or 7 without contempt.
        margin: of a crop from a photo, as a share of the box on each side.
    """

    size: int = CROPPED
    classes: int = 8
    margin: float = 0.0
    crop = "boxes"  # the newer release is cropped alike


class Builder(PictureBuilder):
    """AffectNet in the order of its lists. See README.md for the files and features."""

    HOMEPAGE = "http://mohammadmahoor.com/affectnet/"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds Manually_Annotated_file_lists/ or train_set/"
    VARIANTS = {"classes8": AffectNetOptions(), "classes7": AffectNetOptions(classes=7)}
    CHOICES = {"classes": (7, 8)}

    @property
    def classes(self) -> tuple[str, ...]:
        return labels.classes(self.options.classes)

    def fields(self) -> dict[str, Any]:
        landmarks = tfds.features.Tensor(shape=(reading.MARKS, 2), dtype=np.float32)
        return {**super().fields(), "landmarks": landmarks, "valence": np.float32, "arousal": np.float32}

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        root = root_of(manual_dir, [place for places in RELEASES.values() for place in places], "AffectNet")
        there = [name for name, places in RELEASES.items() if any((root / place).exists() for place in places)]
        if len(there) > 1:
            raise UserError(
                f"{root} holds both releases of AffectNet, lists and train_set/: move one of them to another folder"
            )
        if there == ["npy"]:
            if (self.options.size, self.options.margin) != (CROPPED, 0.0):
                raise UserError(
                    f"affectnet: options size and margin do not apply to the newer release, which is cropped already "
                    f"to {CROPPED} pixels: leave them out"
                )
            return self._list_npy(root, problems)
        return self._list_csv(root, problems)

    def _list_npy(self, root: pathlib.Path, problems: Problems) -> Listing:
        items, found = {}, []
        for split, name in (("train", "train_set"), ("validation", "val_set")):
            folder = place_of(root, [name], "AffectNet")
            rows, images = reading.read_npy(folder, problems)
            found.append(f"{folder}: {len(images):,} pictures")
            beside = {
                row.name: [str(folder / "annotations" / f"{row.name}_{kind}.npy") for kind in KINDS] for row in rows
            }
            items[split] = self._items((row, images[row.name], *beside[row.name]) for row in rows)
        validation = one_less([item.fields["code"] for item in items["validation"]], self.options.classes)
        return self._listing(items, found, COUNTS | {"validation": validation}, "npy")

    def _list_csv(self, root: pathlib.Path, problems: Problems) -> Listing:
        lists = place_of(root, RELEASES["csv"], "AffectNet").parent
        photos = place_of(root, PHOTOS, "AffectNet")
        there = {f"{folder}/{n}": p for folder, files in reading.folders_below(photos) for n, p in files.items()}
        items, found, named = {}, [], set()
        for split, name in (("train", "training.csv"), ("validation", "validation.csv")):
            path = place_of(lists, [name], "AffectNet")
            rows = reading.read_csv(path, problems)
            named |= {row.name for row in rows}
            wanted = [row for row in rows if row.code < self.options.classes]
            left = f", {len(rows) - len(wanted):,} of them of no class" if len(rows) > len(wanted) else ""
            found.append(f"{path}: {len(rows):,} rows{left}")
            for row in wanted:
                if row.name not in there:
                    problems.gap(photos / row.name, f"is in {name} and is not there: unpack its archive again")
            items[split] = self._items((row, there[row.name]) for row in wanted if row.name in there)
        for name in sorted(set(there) - named):
            if is_picture(name.rpartition("/")[2]):
                problems.extra(there[name], "is in no list: remove it from the folder, or complete the lists")
        return self._listing(items, found, COUNTS, "csv")

    def _items(self, rows: Iterable[Sequence[Any]]) -> list[Item]:
        """Returns the examples of (row, file, ...) that are of a class."""
        return [
            self.item(files, row.code, _cut(row), name=row.name)
            for row, *files in rows
            if row.code < self.options.classes
        ]

    def _listing(
        self,
        items: Mapping[str, list[Item]],
        found: list[str],
        counts: Mapping[str, tuple[int, ...]],
        release: str,
    ) -> Listing:
        return Listing(
            items=items,
            found=tuple(found),
            metadata={"release": release},
            expected=self.published(counts),
        )

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        if item.crop is None:
            return self._encode_crop(item)
        box, landmarks, valence, arousal = item.crop
        photo, notes = pixels(item.files[0], self.CHANNELS)
        check_box(box, photo)
        face, matrix = crop_box(photo, box, self.options.size, self.options.margin)
        points = _inside(transform_points(landmarks, matrix), self.options.size)
        return {"image": stored(face), "landmarks": points, "valence": valence, "arousal": arousal}, notes

    def _encode_crop(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        picture = copied(item.files[0], self.CHANNELS, self.picture_size())
        values = []
        for path, count in zip(item.files[1:], (1, 1, 2 * reading.MARKS), strict=True):
            try:
                values.append(reading.numbers(path, count))
            except BadPicture as error:
                raise BadPicture(f"cannot be used: {pathlib.Path(path).name} {error}") from error
        valence, arousal, marks = values
        numbers = {"valence": float(valence[0]), "arousal": float(arousal[0])}
        return {
            "image": picture.file(),
            "landmarks": _inside(marks.reshape(reading.MARKS, 2), CROPPED),
            **numbers,
        }, picture.notes


def one_less(codes: Sequence[int], classes: int) -> tuple[int, ...]:
    """Returns the number of validation pictures of each code that the newer release has: 500, and of one class 499.

    The class is not documented, so any of `codes` may be the one.
    """
    full = COUNTS["validation"]
    found = tuple(int(n) for n in np.bincount(np.asarray(codes, np.int64), minlength=len(full)))
    short = [code for code in range(classes) if found[code] != full[code]]
    if len(short) == 1 and found[short[0]] == full[short[0]] - 1:
        return found
    return full


def _cut(row: Row) -> tuple[Any, ...] | None:
    return None if row.box is None else (row.box, row.landmarks, row.valence, row.arousal)


def _inside(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Returns landmarks [68, 2] as they are stored: all NaN if too many lie outside of the picture."""
    outside = ((landmarks < 0) | (landmarks > size - 1)).any(axis=1).mean()
    return np.full_like(landmarks, np.nan, np.float32) if outside > OUTSIDE else landmarks.astype(np.float32)
