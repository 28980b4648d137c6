"""Clips of any length: their frames lie one after the other in RAM, and training samples a few of each clip.

A frame without a face is never dropped: it keeps its place and is masked. Training samples only frames with a face.
Nothing is padded to the longest clip, so a long clip costs no more memory than its own frames.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fer_jax.errors import UserError

# Fields of a data set of clips with a row per frame; so have all whose name begins with 'frame'.
PER_FRAME = frozenset({"landmarks", "points", "action_units", "pose", "occluded_fraction"})
MIDDLE_APEX = ("mmi", "synthetic_faces")  # data sets whose clips return to neutral: the apex is in the middle
OFFICIAL_FRAMES = 3
DIVISORS = {"official": 3, "official_ckplus": 5}  # p = N // 3 or N // 5 in the authors' triples
Arrays = dict[str, np.ndarray]


class ClipSample(NamedTuple):
    """Which frames of which clips make up a batch.

    Attributes:
        row: int32 [B], the clips.
        frame: int32 [B, K], the sampled frames in the flat list; -1 where the clip has no face.
    """

    row: np.ndarray
    frame: np.ndarray


@dataclass(frozen=True)
class ClipSampler:
    """Samples frames for training. An epoch goes once through its M instances: a clip and K ranges of its faces.

    Attributes:
        row: int32 [M], the clip of each instance.
        low, high: int32 [M, K], half-open ranges in `faces` that each sampled frame comes from; empty where the clip
            has no face.
        faces: int32 [F], the places of all faces in the flat list, in order.
    """

    row: np.ndarray
    low: np.ndarray
    high: np.ndarray
    faces: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    @property
    def frames(self) -> int:
        """K, the number of frames sampled from a clip."""
        return self.low.shape[1]

    def draw(self, chosen: np.ndarray, seed: int, step: int) -> ClipSample:
        """Samples the frames of the instances `chosen` [B] for one step; depends on (seed, step) only."""
        low, high = self.low[chosen], self.high[chosen]
        rng = np.random.default_rng([seed, zlib.crc32(b"clip frames"), step])
        place = low + (rng.random(low.shape) * (high - low)).astype(np.int32)
        frame = np.where(high > low, self.faces[np.minimum(place, len(self.faces) - 1)], -1)
        return ClipSample(self.row[chosen], frame.astype(np.int32))


def is_per_frame(field: str) -> bool:
    """Whether a field of a data set of clips has a row per frame instead of one per clip."""
    return field.startswith("frame") or field in PER_FRAME


def separate(fields: Mapping[str, np.ndarray]) -> tuple[Arrays, Arrays]:
    """Splits stored fields into those per clip, with `start` and `length` in the flat list, and those per frame."""
    frames = {name: values for name, values in fields.items() if is_per_frame(name)}
    arrays = {name: values for name, values in fields.items() if not is_per_frame(name)}
    length = arrays["length"].astype(np.int32)
    arrays |= {"length": length, "start": (np.cumsum(length) - length).astype(np.int32)}
    frames.setdefault("frame_mask", np.ones(int(length.sum()), bool))
    return arrays, frames


def frame_rows(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Returns int32 [sum of length], the places of all frames of the given clips, clip by clip."""
    before = np.cumsum(length) - length
    return (np.arange(int(length.sum())) + np.repeat(start - before, length)).astype(np.int32)


def face_counts(start: np.ndarray, length: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (first, count) of each clip's faces among the faces of the whole flat list."""
    until = np.concatenate([[0], np.cumsum(mask)]).astype(np.int32)
    return until[start], until[start + length] - until[start]


def clip_sampler(
    arrays: Mapping[str, np.ndarray], mask: np.ndarray, *, sampling: str, frames: int, single: bool, seed: int
) -> ClipSampler:
    """Returns the sampler of a set of clips.

    Args:
        arrays: per clip, with `start` and `length`.
        mask: bool [F], which frames of the flat list show a face.
        sampling: 'segments' (each clip once an epoch; one frame from each of `frames` disjoint parts of its faces,
            sampled every time; a clip with fewer faces than parts repeats some), or one of `DIVISORS` (the authors'
            triples: one for every face of the clip, drawn once from `seed` and kept).
        frames: K.
        single: every face is an instance of its own, whatever `sampling` says (score fusion).
        seed: of the authors' triples.

    Raises:
        UserError: if triples are requested with K other than 3, and if no clip has a face.
    """
    first, count = face_counts(arrays["start"], arrays["length"], mask)
    if not count.any():
        raise UserError(f"none of the {len(count)} training clips has a frame with a face: name another data set")
    faces = np.flatnonzero(mask).astype(np.int32)
    if single:
        rank = frame_rows(first, count)[:, None]
        return ClipSampler(_owners(count), rank, rank + 1, faces)
    if sampling == "segments":
        return ClipSampler(np.arange(len(count), dtype=np.int32), *segments(first, count, frames), faces)
    if frames != OFFICIAL_FRAMES:
        raise UserError(f"config.data.clip_frames={frames}: config.data.clip_sampling='{sampling}' needs 3")
    triples = np.repeat(first, count)[:, None] + official_triples(count, DIVISORS[sampling], seed)
    return ClipSampler(_owners(count), triples, triples + 1, faces)


def segments(first: np.ndarray, count: np.ndarray, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides the faces of each clip into K half-open ranges that do not overlap; returns (low, high), int32 [N, K]."""
    bounds = count[:, None].astype(np.int64) * np.arange(parts + 1) // parts
    low = np.minimum(bounds[:, :-1], np.maximum(count[:, None] - 1, 0))
    high = np.maximum(bounds[:, 1:], low + 1)  # fewer faces than parts: some parts share one
    high = np.where(count[:, None] > 0, high, low)
    return (first[:, None] + low).astype(np.int32), (first[:, None] + high).astype(np.int32)


def official_triples(count: np.ndarray, divisor: int, seed: int) -> np.ndarray:
    """Returns the authors' triples, one per face: int32 [sum of count, 3], places among the N faces of the clip.

    With p = N // divisor the ranges are [0, p], [p, 2p] and [2p, N - 1] (divisor 3, AFEW) or [2p, 3p] (5, CK+), both
    ends included, so neighbors share a frame. In a clip of at most `divisor` faces, triple j is face j and two random
    ones.
    """
    n = np.repeat(count, count)
    j = np.arange(len(n)) - np.repeat(np.cumsum(count) - count, count)
    p = n // divisor
    last = n - 1 if divisor == OFFICIAL_FRAMES else 3 * p
    short = n <= divisor
    low = np.where(short[:, None], np.stack([j, 0 * j, 0 * j], axis=1), np.stack([0 * p, p, 2 * p], axis=1))
    high = np.where(short[:, None], np.stack([j, n - 1, n - 1], axis=1), np.stack([p, 2 * p, last], axis=1))
    rng = np.random.default_rng([seed, zlib.crc32(b"official triples")])
    return rng.integers(low, high, endpoint=True).astype(np.int32)


def end_faces(
    arrays: Mapping[str, np.ndarray], mask: np.ndarray, last: int, first: int = 0, middle: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the first and the last faces of each clip, in order. In short clips the last faces take precedence.

    With `middle`, the middle faces of a clip replace the last ones.

    Returns:
        (clips, places in the flat list, whether it is one of the first), each [M].
    """
    start, count = face_counts(arrays["start"], arrays["length"], mask)
    closing = np.minimum(count, last)
    if middle:
        count = closing + (count - closing) // 2  # what follows the middle is left out
    opening = np.minimum(count - closing, first)
    taken = opening + closing
    owner = _owners(taken)
    rank = frame_rows(np.zeros_like(taken), taken)
    early = rank < opening[owner]
    place = start[owner] + rank + np.where(early, 0, (count - taken)[owner])
    return owner, np.flatnonzero(mask).astype(np.int32)[place], early


def middle_faces(arrays: Mapping[str, np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Returns the place of each clip's middle face, which represents the clip in pictures; -1 where it has no face."""
    first, count = face_counts(arrays["start"], arrays["length"], mask)
    faces = np.append(np.flatnonzero(mask), -1)
    return np.where(count > 0, faces[np.minimum(first + count // 2, len(faces) - 1)], -1)


def _owners(count: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(count), dtype=np.int32), count)
