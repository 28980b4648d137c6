"""Reads FER-2013's original file: either of two CSVs, or the archive.

Everything is checked while it is read; a mistake is reported with its file, line and remedy.
"""

from __future__ import annotations

import hashlib
import tarfile
import warnings
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from etils import epath
from tqdm import tqdm

from fer_jax import labels
from fer_jax.errors import UserError
from fer_jax.parsing import LONGEST_LINE, check_regular, table_rows, whole_number
from tfds_builders.listing import Item, Listing, by_class

SPLITS = ("train", "public_test", "private_test")
USAGES = ("Training", "PublicTest", "PrivateTest")  # the splits in the CSV
SIDE = 48
NUM_PIXELS = SIDE * SIDE

# Rows per split and code (angry, disgust, fear, happy, sad, surprise, neutral) of the published file.
COUNTS = np.array(
    [
        [3995, 436, 4097, 7215, 4830, 3171, 4965],
        [467, 56, 496, 895, 653, 415, 607],
        [491, 55, 528, 879, 594, 416, 626],
    ]
)
KNOWN_MD5 = {
    "f8428a1edbd21e88f42c73edd2a14f95": "the published fer2013.csv",
    "b114b9e04e6949e5fe8b6a98b3892b1d": "the published icml_face_data.csv",
}
CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")
ARCHIVE = "fer2013.tar.gz"
WHERE = (
    "get it from Kaggle, 'Challenges in Representation Learning: Facial Expression Recognition Challenge' "
    "(accept the rules, download, unpack the zip)"
)


@dataclass(frozen=True)
class Faces:
    """The pictures of FER-2013 in the order of the source.

    Attributes:
      images: uint8 `[N, 48, 48]`.
      code: int64 `[N]`, FER-2013's own 0..6.
      split: int64 `[N]`, position in `SPLITS`.
      row: int64 `[N]`, row of the CSV from 0, or -1 for a folder version.
      source: the file or folder that was read.
      md5: of the CSV; '' for a folder version.
    """

    images: np.ndarray
    code: np.ndarray
    split: np.ndarray
    row: np.ndarray
    source: str
    md5: str = ""

    @property
    def black(self) -> np.ndarray:
        """bool `[N]`: every pixel is zero (12 pictures of the published file)."""
        return self.images.max(axis=(1, 2)) == 0

    @property
    def leaked(self) -> np.ndarray:
        """bool `[N]`: a training picture whose exact pixels are also in one of the test splits."""
        keys = [image.tobytes() for image in self.images]
        tested = {key for key, split in zip(keys, self.split, strict=True) if split != 0}
        return np.array([split == 0 and key in tested for key, split in zip(keys, self.split, strict=True)], bool)

    def listing(self, **fields: np.ndarray) -> Listing:
        """Returns the examples of the splits that are not empty, with further fields by row, and published counts."""
        every = {"code": self.code, "row": self.row, "black": self.black, "leaked": self.leaked, **fields}
        label = labels.index_table("fer2013", num_classes=7)[self.code]

        def item(i: int) -> Item:
            fields = {field: values[i] for field, values in every.items()}
            return Item((), int(label[i]), fields, self.images[i], f"face {i}")

        published = ", ".join(f"{md5} ({name})" for md5, name in KNOWN_MD5.items())
        unknown = f"{self.source}: its MD5, {self.md5}, is not that of a published file, which are {published}"
        return Listing(
            items={name: [item(i) for i in np.flatnonzero(self.split == n).tolist()] for n, name in enumerate(SPLITS)},
            found=(f"{self.source}: {KNOWN_MD5.get(self.md5, 'not a published file')}",),
            warnings=(unknown,) if self.md5 and self.md5 not in KNOWN_MD5 else (),
            expected={
                split: by_class("fer2013", map(int, row), labels.classes(7))
                for split, row in zip(SPLITS, COUNTS, strict=True)
            },
        )


def find_csv(folder: epath.Path) -> epath.Path | None:
    """Returns the CSV (or the archive with it) under `folder` or `folder/fer2013`, None without one."""
    places = [folder, folder / "fer2013"]
    candidates = [place / name for name in (*CSV_NAMES, ARCHIVE) for place in places]
    return next((path for path in candidates if path.exists() and not path.is_dir()), None)


def read_csv(path: epath.Path) -> Faces:
    """Reads `fer2013.csv`, `icml_face_data.csv` (other column order) or the archive that holds either.

    Raises:
      UserError: for anything but a header and rows of a code, 2,304 pixels and a split.
    """
    if check_regular(path) == 0:
        raise UserError(f"{path} is empty: {WHERE}")
    if not path.name.endswith(".tar.gz"):
        with path.open("rb") as file:
            return _parse(file, str(path), path.stat().length)
    try:
        with path.open("rb") as packed, tarfile.open(fileobj=packed, mode="r:gz") as archive:
            for member in archive:
                if member.isfile() and member.name.rpartition("/")[2] in CSV_NAMES:
                    file = archive.extractfile(member)
                    assert file is not None  # it is a regular file
                    return _parse(file, f"{path}:{member.name}", member.size)
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        reason = str(error).replace("\n", " ")
        raise UserError(f"{path} is damaged ({reason}): download it again") from error
    raise UserError(f"{path} holds neither {' nor '.join(CSV_NAMES)}: {WHERE}")


def _parse(file: IO[bytes], name: str, size: int) -> Faces:
    digest = hashlib.md5(usedforsecurity=False)
    records = table_rows(_lines(file, name, size, digest), name, "get the original file", skipinitialspace=True)
    images, codes, splits = [], [], []
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # older NumPy warns of a bad number where newer raises
        columns = _columns(next(records, (1, []))[1], name)
        for line, record in records:
            where = f"{name}, line {line} (row {len(codes)})"
            if len(record) != len(columns):
                raise UserError(
                    f"{where}: {len(record)} fields instead of {len(columns)}; if it is the last line, "
                    "the file is cut off: download or unpack it again"
                )
            codes.append(_code(record[columns["emotion"]], where))
            images.append(_pixels(record[columns["pixels"]], where))
            splits.append(_split(record[columns["usage"]], where))
    if not codes:
        raise UserError(f"{name} has a header and no rows: {WHERE}")
    return Faces(
        images=np.stack(images).reshape(-1, SIDE, SIDE),
        code=np.array(codes, np.int64),
        split=np.array(splits, np.int64),
        row=np.arange(len(codes), dtype=np.int64),
        source=name,
        md5=digest.hexdigest(),
    )


def _lines(file: IO[bytes], name: str, size: int, digest) -> Iterator[str]:
    # Decoded line by line, to report the line of a wrong byte.
    with tqdm(total=size, desc=f"reading {name.rpartition('/')[2]}", unit="B", unit_scale=True, disable=None) as bar:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            digest.update(line)
            bar.update(len(line))
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{name}, line {number}: byte {error.start} is not UTF-8 text; the file is damaged or "
                    "was saved by a spreadsheet: get the original"
                ) from error


def _columns(header: Iterable[str], name: str) -> dict[str, int]:
    columns = {title.strip().lower(): i for i, title in enumerate(header)}
    for needed in ("emotion", "pixels", "usage"):
        if needed not in columns:
            hint = "test.csv and train.csv lack the test labels: " if needed == "usage" else ""
            raise UserError(
                f"{name}, line 1: no column '{needed}' in the header ({', '.join(columns)[:60]!r}); "
                f"{hint}use {' or '.join(CSV_NAMES)}"
            )
    return columns


def _code(text: str, where: str) -> int:
    codes = labels.CODES["fer2013"]
    if text.strip() not in map(str, codes):
        raise UserError(f"{where}, column emotion: {text[:20]!r} is not a code of FER-2013 (0 to {len(codes) - 1})")
    return int(text)


def _split(text: str, where: str) -> int:
    if text.strip() not in USAGES:
        raise UserError(f"{where}, column Usage: {text[:20]!r} is not a split (use {', '.join(USAGES)})")
    return USAGES.index(text.strip())


def _pixels(text: str, where: str) -> np.ndarray:
    try:
        values = np.fromstring(text, np.int64, sep=" ")  # 13 times faster than split() and int()
    except (ValueError, DeprecationWarning):
        values = None
    if values is None or values.size != NUM_PIXELS or values.min() < 0 or values.max() > 255:
        raise UserError(f"{where}, column pixels: {_why_bad(text)}; get the original file")
    return values.astype(np.uint8)


def _why_bad(text: str) -> str:
    words = text.split()
    for position, word in enumerate(words):
        if whole_number(word, 0, 255) is None:
            return f"pixel {position} is {word[:20]!r}, not a number from 0 to 255"
    return f"{len(words):,} pixels instead of {NUM_PIXELS:,} ({SIDE}x{SIDE})"
