"""Tracks one face over the frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_jax.faces.alignment import Box
from fer_jax.faces.detection import Face, choose, distance, overlap

OVERLAP = 0.2  # the minimum IoU with the last box for a face to be the same one;
REACH = 1.0  # otherwise it may have moved by this share of the box's side from frame to frame
GROWTH = 1.5  # and grown or shrunk by this factor
SMOOTHING = 0.4
PATIENCE = 5


class Tracker:
    """Selects the tracked face among the detected faces of each frame.

    It is the face with the largest overlap (IoU) with the last box, otherwise the nearest one of a similar size. If
    nothing matches, the frame has no face. After `patience` such frames in a row (a scene cut, or a person who left)
    the next face of any place and size starts a new track.

    Boxes and points are smoothed, so that the crop does not jitter with the detector: each is a weighted mean of the
    detected and the previous value, whose weight is `smoothing ** d` after d frames. The result lags behind a face that
    moves by v pixels per frame by v * smoothing / (1 - smoothing) pixels: two thirds of v by default. A new track
    starts without previous values. If points are missing, the last ones are moved along with the box, for at most
    `patience` frames.

    Args:
        smoothing: from 0 (none) to below 1.
        patience: in frames.
        near: selects the face that starts a track, see `choose`; by default the largest.

    Attributes:
        track: number of the current track, from 0; -1 before the first face.
    """

    def __init__(self, *, smoothing: float = SMOOTHING, patience: int = PATIENCE, near: Box | None = None):
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be from 0 to below 1, not {smoothing}")
        if patience < 1:
            raise ValueError(f"patience must be at least one frame, not {patience}")
        self.smoothing, self.patience, self.near = smoothing, patience, near
        self.track = -1
        self._last: Face | None = None  # as detected
        self._smooth: Face | None = None
        self._missed = 0  # frames since the last face
        self._seen: tuple[np.ndarray, Box] | None = None  # the last detected points, and their box
        self._blind = 0  # frames with a face since then

    def __call__(self, faces: Sequence[Face]) -> Face | None:
        """Returns the tracked face of the next frame, smoothed, or None if it is missing.

        Args:
            faces: all faces detected in the frame.
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
        """Returns the tracked face among `faces`, or None."""
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
        growth = _side(face.box) / _side(box)  # the same for both axes: a face does not get narrower
        old, new = np.array([x + (w - 1) / 2, y + (h - 1) / 2]), np.array([u + (s - 1) / 2, v + (t - 1) / 2])
        return (points - old) * growth + new


def _side(box: Box) -> float:
    return float(np.sqrt(box[2] * box[3]))


def _mixed(old: Face | None, new: Face, past: float) -> Face:
    """Returns the weighted mean of two faces; `past` is the weight of the old one."""
    if old is None:
        return new
    x, y, w, h = (past * np.array(old.box) + (1 - past) * np.array(new.box)).tolist()
    points = new.points
    if points is not None and old.points is not None and points.shape == old.points.shape:
        points = past * old.points + (1 - past) * points
    return Face((x, y, w, h), new.score, points)
