"""Pictures that stay encoded on disk, for data sets larger than memory, in place of an array of pixels.

`LazyPictures` behaves like uint8 [N, H, W, C]: it has a shape and returns the pixels of rows. A record is read and
decoded when one of its rows is asked for, in as many threads as there are cores (reading and decoding release the
interpreter lock). So a host reads only what it trains on, in any order.
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from fer_jax.data.sources.records import pictures_in, readable
from fer_jax.errors import UserError
from fer_jax.parsing import machine_memory

PART = 64  # examples that a thread reads at once
MEMORY_SHARE = 0.4  # of the machine's memory that the pixels of a split may fill; larger splits stay on disk


class LazyPictures:
    """Pictures uint8 [N, H, W, C] that are read when rows are taken.

    Args:
        read: maps places int [M] to pixels uint8 [M, H, W, C].
        shape: (H, W, C).
        place: int [N], the place of each row.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], shape: Sequence[int], place: np.ndarray):
        self.read, self.place = read, place
        self.shape = (len(place), *shape)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of all pixels once decoded."""
        return int(np.prod(self.shape, dtype=np.int64))

    def at(self, rows: np.ndarray) -> LazyPictures:
        """Returns the pictures at `rows` without reading any."""
        return LazyPictures(self.read, self.shape[1:], self.place[rows])

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Reads pixels: uint8 [*shape of the rows, H, W, C]."""
        place = self.place[rows]
        return self.read(np.ravel(place)).reshape(*np.shape(place), *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # reading always makes one
        return self[:] if dtype is None else self[:].astype(dtype)


class RecordReader:
    """Reads pictures out of stored examples.

    Args:
        records: returns the examples at a list of rows, as bytes (array_record's data source).
        feature: which feature holds the pictures, 'image' or 'frames'.
        shape: (H, W, C) of each.
        record: int [P], the example that holds each picture.
        number: int [P], the picture's place in it; 0 for images.
        where: names the data set and its folder in messages.
    """

    def __init__(
        self, records: Any, feature: str, shape: Sequence[int], record: np.ndarray, number: np.ndarray, where: str
    ):
        self._records, self._feature, self._where = records, feature, where
        self._record, self._number = record, number
        self.shape = tuple(shape)

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Reads each example once and decodes the pictures that are asked for: uint8 [M, H, W, C]."""
        pixels = np.empty((len(places), *self.shape), np.uint8)
        examples, owner = np.unique(self._record[places], return_inverse=True)
        order = np.argsort(owner, kind="stable")
        first = np.searchsorted(owner[order], np.arange(len(examples) + 1))

        def fill(part: np.ndarray) -> None:
            with readable(self._where):
                stored = self._records.__getitems__(examples[part].tolist())
            for example, data in zip(part, stored, strict=True):
                files = pictures_in(data, self._feature)
                for row in order[first[example] : first[example + 1]]:
                    pixels[row] = self._decode(files[int(self._number[places[row]])])

        if len(examples):
            count = max(min(len(examples), threads()), len(examples) // PART)  # a thread holds the files of one part
            list(_pool(threads()).map(fill, np.array_split(np.arange(len(examples)), count)))
        return pixels

    def _decode(self, data: bytes) -> np.ndarray:
        flag = cv2.IMREAD_GRAYSCALE if self.shape[-1] == 1 else cv2.IMREAD_COLOR_RGB
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:  # no bytes at all, or an absurd size
            image = None
        if image is None:
            raise UserError(
                f"{self._where} holds a picture that cannot be decoded: delete that folder and build it again"
            )
        image = image[..., None] if image.ndim == 2 else image
        if image.shape != self.shape:
            raise UserError(
                f"{self._where} holds pictures of {image.shape[1]}x{image.shape[0]} and of "
                f"{self.shape[1]}x{self.shape[0]} pixels, but all must have one size: build it with --option=size=..."
            )
        return image


def fit_in_memory(shape: Sequence[int]) -> bool:
    """Whether uint8 pixels of this shape take no more than `MEMORY_SHARE` of the machine's memory."""
    return int(np.prod(shape, dtype=np.int64)) <= MEMORY_SHARE * machine_memory()


def select(values: Any, rows: np.ndarray) -> Any:
    """Returns the rows of an array, or of lazy pictures without reading them."""
    return values.at(rows) if isinstance(values, LazyPictures) else values[rows]


def threads() -> int:
    """Returns how many threads decode at once."""
    return max(2, os.cpu_count() or 1)


@functools.cache
def _pool(workers: int) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(workers, "decoding")
