"""Reads the folder versions of FER-2013, `{train,test}/<class>/<picture>`, with either naming of pictures."""

from __future__ import annotations

import re

import numpy as np
from etils import epath
from tqdm import tqdm

from fer_jax import labels
from fer_jax.errors import UserError
from fer_jax.faces import pictures
from fer_jax.faces.pictures import BadPicture
from tfds_builders.fer2013 import reading
from tfds_builders.fer2013.reading import SIDE, USAGES, Faces

_PARTS = ("train", "test")
_NAMED = re.compile(rf"({'|'.join(USAGES)})_(\d+)\.(?:jpe?g|png)", re.IGNORECASE)  # the Kaggle re-upload
_COUNTED = re.compile(r"im(\d+)\.(?:png|jpe?g)", re.IGNORECASE)  # written by a dataset_prepare.py from the CSV
_CODE = {labels.canonical("fer2013", code): int(code) for code in labels.CODES["fer2013"]}


def find_folder(folder: epath.Path) -> epath.Path | None:
    """Returns the folder that holds `train/<class>` under `folder`, None without one."""
    places = [folder, folder / "fer2013", folder / "data"]
    return next((place for place in places if (place / "train").is_dir()), None)


def read_folder(folder: epath.Path) -> Faces:
    """Reads a folder version, sorted by split, class and number; the CSV row is unknown (-1).

    `test/` merges both test splits. The names `PublicTest_<n>` and `PrivateTest_<n>` say which one it is; in
    `im<k>.png`, `k` counts the class in the order of the CSV, the public ones first.

    Raises:
      UserError: for a missing part, an unknown class folder, a stray file, or a picture that is not 48x48.
    """
    entries: list[tuple[int, int, int, epath.Path]] = []  # split, code, number, path
    for part in _PARTS:
        if not (folder / part).is_dir():
            raise UserError(f"{folder} has no folder '{part}': the folder version has train/ and test/")
        for group in sorted((folder / part).iterdir()):
            if group.name.startswith(".") or not group.is_dir():
                continue
            try:
                code = _CODE[labels.name_of(group.name)]
            except (UserError, KeyError) as error:
                raise UserError(f"{group} is not a class of FER-2013: use {', '.join(_CODE)}") from error
            files = (path for path in group.iterdir() if not path.name.startswith((".", "Thumbs.db")))
            entries += [(*_place(path, part, code), path) for path in files]
    if not entries:
        raise UserError(f"{folder} has no pictures under train/<class>/ and test/<class>/")
    entries.sort(key=lambda entry: (*entry[:3], entry[3].name))
    images = [_picture(entry[3]) for entry in tqdm(entries, desc="reading pictures", disable=None)]
    split, code = np.array([entry[:2] for entry in entries], np.int64).T
    return Faces(np.stack(images), code, split, np.full(len(entries), -1, np.int64), source=str(folder))


def _place(path: epath.Path, part: str, code: int) -> tuple[int, int, int]:
    """Returns split, code and number from a picture's name."""
    if named := _NAMED.fullmatch(path.name):
        usage = [name.lower() for name in USAGES].index(named[1].lower())
        if (usage == 0) != (part == "train"):
            raise UserError(f"{path}: a picture of {USAGES[usage]} does not belong in '{part}': restore the folder")
        return usage, code, int(named[2])
    if counted := _COUNTED.fullmatch(path.name):
        number = int(counted[1])
        is_private = number >= reading.COUNTS[1, code]
        return (0 if part == "train" else 1 + int(is_private)), code, number
    raise UserError(f"{path}: not a name like Training_<n>.jpg, PublicTest_<n>.jpg or im<k>.png: remove the file")


def _picture(path: epath.Path) -> np.ndarray:
    try:
        image = pictures.pixels(path, 1)[0][..., 0]
    except BadPicture as error:
        raise UserError(f"{path} {error}") from error
    if image.shape != (SIDE, SIDE):
        raise UserError(
            f"{path} is {image.shape[1]}x{image.shape[0]} pixels, not {SIDE}x{SIDE}: the copy was rescaled; "
            "use the original"
        )
    return image
