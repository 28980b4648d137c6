"""Synthetic occlusions: objects painted in front of faces, as in the protocol of Li et al. (IEEE T-IP 2019).

Training uses every image twice, unchanged and behind an object of the training bank; the test split is scored unchanged
and behind objects of the test bank, which shares no kind of object with the training bank. The side of an object is 96
to 128 pixels of an input of 224, and its center is uniform over the middle of the picture, where the face is. It does
not depend on landmarks, which only some methods read, so that all methods are tested behind the same objects. A copy
keeps the label and points of its original, whatever a detector would find on a covered face.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_jax.data.corrupt.occluders import BANKS, KINDS, Occluder, cover
from fer_jax.data.sources.on_disk import LazyPictures
from fer_jax.errors import UserError
from fer_jax.randomness import PI, Purpose, Stream

if TYPE_CHECKING:
    from fer_jax.data.sources.source import Source

INPUT = 224.0
SIDES = (96.0, 128.0)  # of an object, in pixels of an input of 224
MIDDLE = (0.1, 0.9)  # of each side of the picture: where the face is
GRAY = np.array((0.299, 0.587, 0.114), np.float32)[:, None, None, None]
CHUNK = 256  # images painted at once
TEST_SEED = 0  # one fixed copy of each test image, whatever the seed of training is


def with_occluded_copies(source: Source, seed: int, masks: bool = False) -> Source:
    """Returns the source followed by a copy of every example behind an object of the training bank.

    Copies of images on disk are painted when they are read.

    Args:
        source: the examples.
        seed: of the objects.
        masks: whether to add the field `occlusion`, bool [N, H, W], which marks the covered pixels.

    Raises:
        UserError: for masks of images on disk, which are not kept.
    """
    images = source.arrays["image"]
    arrays = {name: np.concatenate([values, values]) for name, values in source.arrays.items() if name != "image"}
    if isinstance(images, LazyPictures):
        if masks:
            raise UserError(f"config.data.occlusion_masks: {source.name} is read from disk; set it to False")
        both: Any = _lazy_copies(source, images, seed)
    else:
        copies, covered = paint(source, "train", seed)
        both = np.concatenate([images, copies])
        arrays |= {"occlusion": np.concatenate([np.zeros_like(covered), covered])} if masks else {}
    arrays |= {"image": both, "index": np.arange(2 * len(source), dtype=np.int32)}
    return dataclasses.replace(source, arrays=arrays, rows=np.concatenate([source.rows, source.rows]))


def _lazy_copies(source: Source, images: LazyPictures, seed: int) -> LazyPictures:
    count = len(images)
    height, width, _ = images.shape[1:]
    objects = place(source.rows, (height, width), "train", seed)

    def read(places: np.ndarray) -> np.ndarray:
        pixels = images[places % count]
        copies = np.flatnonzero(places >= count)
        if len(copies):
            pixels[copies], _ = painted(pixels[copies], _part(objects, places[copies] - count))
        return pixels

    return LazyPictures(read, images.shape[1:], np.arange(2 * count, dtype=np.int32))


def behind_test_objects(source: Source) -> Source:
    """Returns the source with every image behind an object of the test bank.

    The field `occlusion`, bool [N, H, W], marks the covered pixels.
    """
    images, masks = paint(source, "test", TEST_SEED)
    return dataclasses.replace(source, arrays={**source.arrays, "image": images, "occlusion": masks})


def paint(source: Source, bank: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns copies of the images behind objects, uint8 [N, H, W, C], and the covered pixels, bool [N, H, W].

    The object of an example depends only on the bank, the seed and the example's row in the split as stored.
    """
    images = source.arrays["image"]
    objects = place(source.rows, images.shape[1:3], bank, seed)
    copies, masks = np.empty(images.shape, np.uint8), np.empty(images.shape[:3], bool)
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        copies[part], masks[part] = painted(images[part], _part(objects, part))
    return copies, masks


def painted(images: np.ndarray, objects: Occluder) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [B, H, W, C] behind one object each, and the covered pixels, bool [B, H, W]."""
    rgb = np.moveaxis(images.astype(np.float32) / 255, -1, 0)  # [C, B, H, W]
    rgb = np.ascontiguousarray(np.broadcast_to(rgb, (3, *rgb.shape[1:])))
    masks = cover(rgb, objects)
    if images.shape[-1] == 1:
        rgb = (GRAY * rgb).sum(axis=0, keepdims=True)
    over = np.moveaxis(np.floor(np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8), 0, -1)
    return np.where(masks[..., None], over, images), masks


def place(rows: np.ndarray, size: tuple[int, int], bank: str, seed: int) -> Occluder:
    """Draws an object for each picture.

    Args:
        rows: int [N], rows of the examples in their split.
        size: (height, width) of the pictures.
        bank: 'train' or 'test'.
        seed: of the draws.
    """
    height, width = size
    kinds = BANKS[bank]
    s = Stream(seed, Purpose.COPY, rows, frames=sorted(BANKS).index(bank), capacity=16)
    scale = max(size) / INPUT
    tone = s.uniform(0.35, 1.0)
    values = dict(
        x=s.uniform(*MIDDLE) * width,
        y=s.uniform(*MIDDLE) * height,
        half=s.uniform(*SIDES) / 2 * scale,
        turn=s.uniform(-PI / 2, PI / 2),
        color=np.stack([s.uniform(0.05, 0.95) for _ in range(3)]),
        accent=np.stack([s.uniform(0.05, 0.95) for _ in range(3)]),
        skin=np.stack([0.95 * tone, 0.74 * tone, 0.60 * tone]),
    )
    kind = KINDS.index(kinds[0]) + s.integer(len(kinds))
    return Occluder(kind=kind, **{name: value.astype(np.float32) for name, value in values.items()})


def _part(objects: Occluder, part: slice | np.ndarray) -> Occluder:
    return Occluder(**{f.name: getattr(objects, f.name)[..., part] for f in dataclasses.fields(objects)})
