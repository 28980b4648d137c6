"""Tracks faces over the frames of a clip: one of them (`Tracker`), or all of them (`Tracks`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_jax.faces.alignment import ONE_SPOT, Box
from fer_jax.faces.detection import Face, choose, distance, overlap

OVERLAP = 0.2  # the minimum IoU with the last box for a face to be the same one;
REACH = 1.0  # otherwise it may have moved by this share of the box's side since the last frame
GROWTH = 1.5  # and grown or shrunk by this factor
SMOOTHING = 0.4  # weight of the previous value beside the detected one
PATIENCE = 0.2  # seconds
FRAME = 1 / 25  # seconds: smoothing is stated for frames of this length
TINY = 1e-6  # seconds: times are sums of fractions and inexact


class Tracker:
    """Selects the tracked face among the detected faces of each frame.

    It is the face with the largest overlap (IoU) with the last box, otherwise the nearest one of a similar size. If
    nothing matches, the frame has no face. After `PATIENCE` seconds without a match (a scene cut, or a person who left)
    the next face of any place and size starts a new track.

    Boxes and points are smoothed, so that the crop does not jitter with the detector: each is a weighted mean of the
    detected and the previous value, whose weight is `SMOOTHING` for a frame that is 1/25 s old, and less for an older
    one. The result lags behind a face that moves by v pixels per frame by v * SMOOTHING / (1 - SMOOTHING) pixels, two
    thirds of v. A new track starts without previous values. If points are missing, the last ones are moved along with
    the box, for at most `PATIENCE` seconds.

    Attributes:
        track: number of the current track, from 0; -1 before the first face.
    """

    def __init__(self):
        self.track = -1
        self._current: _Track | None = None

    def __call__(self, faces: Sequence[Face], time: float) -> Face | None:
        """Returns the tracked face of the next frame, smoothed, or None if it is missing.

        Args:
            faces: all faces detected in the frame; one whose points are not finite, or all on one spot, is none.
            time: of the frame, in seconds.
        """
        faces, current = _believable(faces), self._current
        if current is not None:
            alike = [(likeness, face) for face in faces if (likeness := current.likeness(face)) is not None]
            if alike:
                return current.add(max(alike, key=lambda pair: pair[0])[1], time)
            if not current.lost(time):
                return None
        face = choose(faces)
        if face is None:
            return None
        self.track += 1
        self._current = _Track()
        return self._current.add(face, time)


class Tracks:
    """Tracks every face of a video, each as `Tracker` does; a face that matches no track starts a new one."""

    def __init__(self):
        self._count, self._active = 0, dict[int, _Track]()
        self._before = 0.0  # time of the frame before

    def __call__(self, faces: Sequence[Face], time: float) -> list[tuple[int, Face]]:
        """Returns (number of its track, the face, smoothed) for each face of the next frame, in order."""
        faces = _believable(faces)
        # A face of the frame before may go on, however long ago that was: few frames a second may have been taken.
        self._active = {
            n: track for n, track in self._active.items() if not track.lost(time) or track.seen_at(self._before)
        }
        self._before = time
        pairs = [
            (likeness, -number, -place)
            for number, track in self._active.items()
            for place, face in enumerate(faces)
            if (likeness := track.likeness(face)) is not None
        ]
        numbers: dict[int, int] = {}  # of the track, by place among the faces
        for _, number, place in sorted(pairs, reverse=True):  # the best matches first
            if -place not in numbers and -number not in numbers.values():
                numbers[-place] = -number
        for place in range(len(faces)):
            if place not in numbers:
                numbers[place] = self._count
                self._active[self._count] = _Track()
                self._count += 1
        return [(numbers[place], self._active[numbers[place]].add(face, time)) for place, face in enumerate(faces)]


class _Track:
    """One face over time."""

    def __init__(self):
        self._last: Face | None = None  # as detected
        self._smooth: Face | None = None
        self._time = 0.0  # of the last face
        self._seen: tuple[np.ndarray, Box, float] | None = None  # the last detected points, their box and time

    def lost(self, time: float) -> bool:
        """Whether the face has been missing for too long."""
        return time - self._time > PATIENCE + TINY

    def seen_at(self, time: float) -> bool:
        """Whether the face was in the frame of this time."""
        return self._time >= time - TINY

    def likeness(self, face: Face) -> float | None:
        """Returns how well a face continues the track: the higher the better, None if it is another one."""
        last = self._last
        assert last is not None
        shared = overlap(face.box, last.box)
        if shared >= OVERLAP:
            return shared
        side = _side(last.box)
        away = distance(face.box, last.box) / side
        return -away if away <= REACH and 1 / GROWTH <= _side(face.box) / side <= GROWTH else None

    def add(self, face: Face, time: float) -> Face:
        """Continues the track with a face; returns it smoothed."""
        past = SMOOTHING ** ((time - self._time) / FRAME)
        self._last, self._time = face, time
        self._smooth = _mixed(self._smooth, Face(face.box, face.score, self._points_of(face)), past)
        return self._smooth

    def _points_of(self, face: Face) -> np.ndarray | None:
        if face.points is not None:
            self._seen = (face.points, face.box, self._time)
            return face.points
        if self._seen is None or self._time - self._seen[2] > PATIENCE + TINY:
            return None
        points, box, _ = self._seen
        (x, y, w, h), (u, v, s, t) = box, face.box
        growth = _side(face.box) / _side(box)  # the same for both axes: a face does not get narrower
        old, new = np.array([x + (w - 1) / 2, y + (h - 1) / 2]), np.array([u + (s - 1) / 2, v + (t - 1) / 2])
        return (points - old) * growth + new


def _believable(faces: Sequence[Face]) -> list[Face]:
    return [face for face in faces if face.points is None or ONE_SPOT < np.ptp(face.points, axis=0).max() < np.inf]


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
