"""Finds pictures with equal pixels, and pictures that look alike."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np

SIDE, LOW = 32, 8  # side of the reduced picture, and frequencies kept in each direction
BANDS = 4  # of 16 bits: hashes that differ in fewer bits than there are bands agree in at least one band
NEAR = 2  # bits, below `BANDS`


def pixel_hash(image: np.ndarray) -> bytes:
    """Returns a hash of size, channels and every pixel."""
    return hashlib.blake2b(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes(), digest_size=16).digest()


def perceptual_hash(image: np.ndarray) -> int:
    """Returns 64 bits that hardly change if a picture is scaled, compressed or made brighter.

    Each bit says whether one of the lowest 8x8 frequencies of the cosine transform of a gray copy of 32x32 pixels is
    above their median; the constant, which is the mean brightness, is left out.
    """
    gray = image[..., 0] if image.shape[-1] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:LOW, :LOW].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def equal_groups(hashes: Sequence[bytes | str]) -> list[list[int]]:
    """Returns the groups of two and more examples with equal hashes, each in order."""
    groups: dict[bytes | str, list[int]] = defaultdict(list)
    for i, value in enumerate(hashes):
        groups[value].append(i)
    return [group for group in groups.values() if len(group) > 1]


def near_pairs(hashes: np.ndarray) -> np.ndarray:
    """Returns [P, 2], the pairs i < j of uint64 [N] whose bits differ in at most `NEAR` places, in order."""
    found = []
    for band in range(BANDS):
        part = (hashes >> np.uint64(16 * band)).astype(np.uint16)
        order = np.argsort(part, kind="stable")
        ends = np.flatnonzero(np.diff(part[order])) + 1
        for group in np.split(order, ends):
            if len(group) < 2:
                continue
            group = np.sort(group)
            # A row at a time: a group of thousands (flat pictures) must not become millions of pairs in memory.
            for place, i in enumerate(group[:-1]):
                rest = group[place + 1 :]
                close = rest[np.bitwise_count(hashes[rest] ^ hashes[i]) <= NEAR]
                if len(close):
                    found.append(np.stack([np.full(len(close), i), close], axis=1))
    if not found:
        return np.empty((0, 2), np.int64)
    return np.unique(np.concatenate(found), axis=0)
