"""Pictures that stay encoded on disk, for data sets larger than memory, in place of an array of pixels.

`LazyPictures` answers what the harness asks of uint8 [N, H, W, C]: its shape, and the pixels of rows. A record is read
and decoded when a row of it is asked for, by as many threads as there are cores (reading and decoding leave the
interpreter alone). So a host reads what it trains on and nothing else, in any order.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from fer_jax.errors import UserError, first_line

PART = 64  # examples that a thread reads at once
MEMORY_SHARE = 0.4  # of the machine's memory that the pixels of a split may fill; larger splits stay on disk


class LazyPictures:
    """Stands for uint8 [N, H, W, C].

    Args:
        read: from places int [M] to pixels uint8 [M, H, W, C].
        shape: (H, W, C).
        place: int [N], what `read` is asked for each row.
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
        """Of the pixels, were they all in memory."""
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
        records: gives the examples at a list of rows, as bytes (array_record's data source).
        feature: which feature holds the pictures, 'image' or 'frames'.
        shape: (H, W, C) of each.
        record: int [P], the example that holds each picture.
        number: int [P], the picture's place in it; 0 for images.
        where: for messages.
    """

    def __init__(
        self, records: Any, feature: str, shape: Sequence[int], record: np.ndarray, number: np.ndarray, where: str
    ):
        self._records, self._feature, self._where = records, feature, where
        self._record, self._number = record, number
        self.shape = tuple(shape)

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Reads each example once and decodes the pictures that are asked for: uint8 [M, H, W, C]."""
        return self.read(places, threads())

    def examples(self, places: np.ndarray) -> np.ndarray:
        """Returns the example that holds each picture."""
        return self._record[places]

    def read(self, places: np.ndarray, parts: int) -> np.ndarray:
        """As a call, by `parts` threads at least, as far as there are examples for them."""
        pixels = np.empty((len(places), *self.shape), np.uint8)
        examples, owner = np.unique(self._record[places], return_inverse=True)
        order = np.argsort(owner, kind="stable")
        first = np.searchsorted(owner[order], np.arange(len(examples) + 1))

        def fill(part: np.ndarray) -> None:
            for example, data in zip(part, self._stored(examples[part]), strict=True):
                files = pictures_in(data, self._feature)
                for row in order[first[example] : first[example + 1]]:
                    pixels[row] = self._decode(files[int(self._number[places[row]])])

        if len(examples):  # a thread holds the files of one part only
            count = max(min(len(examples), parts), len(examples) // PART)
            split = np.array_split(np.arange(len(examples)), count)
            list(map(fill, split) if parts == 1 else _pool(threads()).map(fill, split))
        return pixels

    def _stored(self, examples: np.ndarray) -> Sequence[bytes]:
        try:
            return self._records.__getitems__(examples.tolist())
        except Exception as error:
            raise UserError(
                f"{self._where} cannot be read ({first_line(error)}): the disk or the network failed, or the files "
                "were changed; see that they are there and start the same command again"
            ) from error

    def _decode(self, data: bytes) -> np.ndarray:
        flag = cv2.IMREAD_GRAYSCALE if self.shape[-1] == 1 else cv2.IMREAD_COLOR_RGB
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:  # of no bytes, or of a size beyond all measure
            image = None
        if image is None:
            raise UserError(f"{self._where} holds a picture that cannot be decoded: delete that folder, build it again")
        image = image[..., None] if image.ndim == 2 else image
        if image.shape != self.shape:
            raise UserError(
                f"{self._where} holds pictures of {image.shape[1]}x{image.shape[0]} and of "
                f"{self.shape[1]}x{self.shape[0]} pixels, and training needs one size: build it with --option=size=..."
            )
        return image


def pictures_in(data: bytes, feature: str) -> Sequence[bytes]:
    """Returns the encoded pictures of a stored example, one of an image, all of a clip."""
    from tensorflow_datasets.proto import tf_example_pb2

    example: Any = tf_example_pb2.Example.FromString(data)  # pyright: ignore
    return example.features.feature[feature].bytes_list.value


def fit_in_memory(shape: Sequence[int]) -> bool:
    """Whether uint8 pixels of this shape take no more than `MEMORY_SHARE` of the machine's memory."""
    return int(np.prod(shape, dtype=np.int64)) <= MEMORY_SHARE * machine_memory()


def machine_memory() -> int:
    """The bytes that this process may fill: of the machine, or of its container."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 16 << 30
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit
        memory = min(memory, int(pathlib.Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory


def select(values: Any, rows: np.ndarray) -> Any:
    """Returns the rows of an array, or of lazy pictures, of which none is read."""
    return values.at(rows) if isinstance(values, LazyPictures) else values[rows]


def threads() -> int:
    """How many decode at once."""
    return max(2, os.cpu_count() or 1)


@functools.cache
def _pool(workers: int) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(workers, "decoding")
