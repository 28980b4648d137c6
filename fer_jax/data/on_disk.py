"""Pictures that stay encoded on disk, for data sets larger than memory, in place of an array of pixels.

`PicturesOnDisk` answers what the harness asks of uint8 [N, H, W, C]: its shape, and the pixels of rows. A record is read
and decoded when a row of it is asked for, by as many threads as there are cores (reading and decoding leave the
interpreter alone). So a host reads what it trains on and nothing else, in any order.
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from fer_jax.errors import UserError

MEMORY_SHARE = 0.4  # of the machine's memory that the pixels of a split may fill; larger splits stay on disk


class PicturesOnDisk:
    """Stands for uint8 [N, H, W, C].

    Args:
        records: reads the stored examples at a list of rows, as bytes (array_record's data source).
        feature: which feature holds the pictures, 'image' or 'frames'.
        shape: (H, W, C) of each.
        record: int [N], the example that holds each picture.
        number: int [N], the picture's place in it; 0 for images.
        where: for messages.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, records: Any, feature: str, shape: Sequence[int], record: np.ndarray, number: np.ndarray, where: str
    ):
        self._records, self._feature, self._where = records, feature, where
        self._record, self._number = record, number
        self.shape = (len(record), *shape)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Of the pixels, were they all in memory."""
        return int(np.prod(self.shape, dtype=np.int64))

    def at(self, rows: np.ndarray) -> PicturesOnDisk:
        """Returns the pictures at `rows` without reading any."""
        return PicturesOnDisk(
            self._records, self._feature, self.shape[1:], self._record[rows], self._number[rows], self._where
        )

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Reads and decodes: uint8 [*shape of the rows, H, W, C]."""
        record, number = self._record[rows], self._number[rows]
        wanted, inverse = np.unique(np.ravel(record), return_inverse=True)
        places = np.ravel(number)
        pixels = np.empty((len(places), *self.shape[1:]), np.uint8)
        if len(wanted):
            parts = np.array_split(np.arange(len(wanted)), min(len(wanted), _threads()))
            order = np.argsort(inverse, kind="stable")
            first = np.searchsorted(inverse[order], np.arange(len(wanted) + 1))

            def fill(part: np.ndarray) -> None:
                for example, data in zip(part, self._read(wanted[part]), strict=True):
                    for place in order[first[example] : first[example + 1]]:
                        pixels[place] = self._decode(data[places[place]])

            list(_pool().map(fill, parts))
        return pixels.reshape(*np.shape(record), *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # decoding always makes one
        return self[:] if dtype is None else self[:].astype(dtype)

    def _read(self, rows: np.ndarray) -> list[Sequence[bytes]]:
        """Returns the encoded pictures of examples."""
        return [pictures_in(data, self._feature) for data in self._records.__getitems__(rows.tolist())]

    def _decode(self, data: bytes) -> np.ndarray:
        flag = cv2.IMREAD_GRAYSCALE if self.shape[-1] == 1 else cv2.IMREAD_COLOR_RGB
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            raise UserError(
                f"{self._where} holds a picture that cannot be decoded: delete that folder and build it again"
            )
        image = image[..., None] if image.ndim == 2 else image
        if image.shape != self.shape[1:]:
            raise UserError(
                f"{self._where} holds pictures of {image.shape[1]}x{image.shape[0]} and of "
                f"{self.shape[2]}x{self.shape[1]} pixels, and training needs one size: build it with --option=size=..."
            )
        return image


def pictures_in(data: bytes, feature: str) -> Sequence[bytes]:
    """Returns the encoded pictures of a stored example, one of an image, all of a clip."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(data).features.feature[feature].bytes_list.value


def fit_in_memory(shape: Sequence[int]) -> bool:
    """Whether uint8 pixels of this shape take no more than `MEMORY_SHARE` of the machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 16 << 30
    return int(np.prod(shape, dtype=np.int64)) <= MEMORY_SHARE * memory


def select(values: Any, rows: np.ndarray) -> Any:
    """Returns the rows of an array, or of pictures on disk, which stay there."""
    return values.at(rows) if isinstance(values, PicturesOnDisk) else values[rows]


def _threads() -> int:
    return max(2, os.cpu_count() or 1)


@functools.cache
def _pool() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(_threads(), "decoding")
