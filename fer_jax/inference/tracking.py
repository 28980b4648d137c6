"""Follows one face over the frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_jax.inference.alignment import Box
from fer_jax.inference.detection import Face, choose, distance, overlap

OVERLAP = 0.2  # the least IoU with the last box that makes a face the same one
REACH = 1.0  # else it may have moved by this share of the box's side from frame to frame
GROWTH = 1.5  # and grown or shrunk by this factor
SMOOTHING = 0.4
PATIENCE = 5


class Tracker:
    """Says, frame after frame, which of the faces found is the one that is followed.

    It is the one with the best overlap (IoU) with the last box, else the nearest of a similar size. In a frame that
    has none of this kind there is no face: nothing is made up for it. After `patience` such frames in a row (a scene
    cut, or a person who left) the next face, of whatever place and size, begins a new track.

    Boxes and points are smoothed, so that the crop does not jitter with the detector: each is the mean of what is
    found and of what was, the past weighted by `smoothing ** d`, d frames later. A face that moves by v pixels a frame
    is lagged by v * smoothing / (1 - smoothing) pixels: two thirds of v by default. A new track starts without a past.
    Points that are not found are those found last, moved along with the box, for at most `patience` frames.

    Args:
        smoothing: 0 (none) to below 1.
        patience: frames.
        near: where a track begins, see `choose`; by default with the largest face.

    Attributes:
        track: number of the present track, from 0; -1 before the first face.
    """

    def __init__(self, *, smoothing: float = SMOOTHING, patience: int = PATIENCE, near: Box | None = None):
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be from 0 to below 1, not {smoothing}")
        if patience < 1:
            raise ValueError(f"patience must be at least one frame, not {patience}")
        self.smoothing, self.patience, self.near = smoothing, patience, near
        self.track = -1
        self._last: Face | None = None  # as found
        self._smooth: Face | None = None
        self._missed = 0  # frames since the last face
        self._seen: tuple[np.ndarray, Box] | None = None  # the points found last, and the box they were found with
        self._blind = 0  # frames with a face since then

    def __call__(self, faces: Sequence[Face]) -> Face | None:
        """Returns the followed face of the next frame, smoothed, or None when it is not there.

        Args:
            faces: all that were found in the frame.
        """
        face = self._same(faces)
        if face is None and (self._last is None or self._missed >= self.patience):
            face = choose(faces, self.near)
            if face is not None:
                self.track += 1
                self._smooth, self._seen = None, None
        if face is None:
            self._missed += 1
            return None
        points = self._points_of(face)
        past = self.smoothing ** (self._missed + 1)
        self._last, self._missed = face, 0
        self._smooth = _mixed(self._smooth, Face(face.box, face.score, points), past)
        return self._smooth

    def _same(self, faces: Sequence[Face]) -> Face | None:
        """Returns the one of `faces` that is the followed one."""
        last = self._last
        if last is None or not faces:
            return None
        best = max(faces, key=lambda face: overlap(face.box, last.box))
        if overlap(best.box, last.box) >= OVERLAP:
            return best
        side = _side(last.box)
        alike = [
            face
            for face in faces
            if distance(face.box, last.box) <= REACH * side and 1 / GROWTH <= _side(face.box) / side <= GROWTH
        ]
        return min(alike, key=lambda face: distance(face.box, last.box), default=None)

    def _points_of(self, face: Face) -> np.ndarray | None:
        if face.points is not None:
            self._seen, self._blind = (face.points, face.box), 0
            return face.points
        self._blind += 1
        if self._seen is None or self._blind > self.patience:
            return None
        points, box = self._seen
        (x, y, w, h), (u, v, s, t) = box, face.box
        growth = _side(face.box) / _side(box)  # one for both axes: a face does not get narrower
        old, new = np.array([x + (w - 1) / 2, y + (h - 1) / 2]), np.array([u + (s - 1) / 2, v + (t - 1) / 2])
        return (points - old) * growth + new


def _side(box: Box) -> float:
    return float(np.sqrt(box[2] * box[3]))


def _mixed(old: Face | None, new: Face, past: float) -> Face:
    """Returns the mean of two faces; `past` is the weight of the old one."""
    if old is None:
        return new
    x, y, w, h = (past * np.array(old.box) + (1 - past) * np.array(new.box)).tolist()
    points = new.points
    if points is not None and old.points is not None and points.shape == old.points.shape:
        points = past * old.points + (1 - past) * points
    return Face((x, y, w, h), new.score, points)
