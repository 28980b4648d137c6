"""Finds faces in pictures with OpenCV's Haar cascades, which are part of its wheel, or with YuNet from an ONNX file.

A detector is any deterministic function from an image, uint8 [H, W], [H, W, 1] or RGB [H, W, 3], to its faces in order
of decreasing confidence, that may be called from several threads at once.
"""

from __future__ import annotations

import abc
import functools
import hashlib
import itertools
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from fer_jax.errors import UserError, first_line
from fer_jax.faces.alignment import Box
from fer_jax.faces.fetch import YUNET, fetch

# The face cascade tolerates about 15 degrees of roll, more than OpenCV's other ones. The second eye cascade is for
# glasses and is used only if the first one finds nothing.
FACE_CASCADE = "haarcascade_frontalface_default.xml"
EYE_CASCADES = ("haarcascade_eye.xml", "haarcascade_eye_tree_eyeglasses.xml")
OPENCV = "pip install 'opencv-python-headless>=4.11,<5'"
LONGEST = 1280  # larger pictures are reduced to this side before detection
SHORTEST = 128  # smaller pictures are enlarged to this side: of FER-2013's 48 pixels YuNet finds 96 % instead of 72 %
BORDER = 0.3  # of the shorter side, black: the cascade does not find a face that fills its picture
FILLING = 0.4  # the minimum side of such a face, as a share of the shorter side
DOUBT = 0.5

SCORE = 0.7  # the smallest of a face that YuNet reports, 0 .. 1

SMALLEST = 24.0  # side of the smallest face of the cascade, in pixels: its own
HITS = 5  # neighboring windows that must have a hit; fewer find more faces and more false ones
FACE_STEP = 1.1  # factor between successive face sizes
EYE_STEP = 1.05
EYE_HITS = 3
EYE_WIDTH = 160  # pixels to which a face is scaled before eye detection
EYE_SIZES = (1 / 8, 1 / 2)  # of an eye's window; these and the following are shares of the face box's width
EYE_ROWS = (0.1, 0.65)  # the upper part of the box, which is searched for eyes
EYE_COLUMNS = (0.08, 0.55)  # of the right eye; mirrored for the left one
EYE_DISTANCES = (0.28, 0.68)
EYE_TILT = 0.6  # tangent of the steepest line through both eyes: 31 degrees


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a picture; points and boxes as in `fer_jax.faces.alignment`.

    Attributes:
        box: (x, y, w, h) in pixels.
        score: confidence; comparable only between faces of one detector.
        points: float64 [2, 2] right and left eye, or [5, 2] right eye, left eye, nose tip, right and left corner of
            the mouth; None if they are unknown.
    """

    box: tuple[float, float, float, float]
    score: float
    points: np.ndarray | None = None

    def __post_init__(self) -> None:
        x, y, w, h = (float(value) for value in self.box)  # integers of an array could overflow
        object.__setattr__(self, "box", (x, y, w, h))


Detector = Callable[[np.ndarray], list[Face]]


class _PerThread(abc.ABC):
    """A detector of OpenCV, which is stateful: every thread loads its own at the first use."""

    def __init__(self) -> None:
        self._mine = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_mine"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _mine=threading.local())

    def _loaded(self) -> Any:
        if not hasattr(self._mine, "model"):
            self._mine.model = self._load()
        return self._mine.model

    @abc.abstractmethod
    def _load(self) -> Any:
        """Loads the model of one thread."""


class Haar(_PerThread):
    """Viola and Jones' cascades (CVPR 2001) for upright frontal faces and their eyes.

    The score is the number of neighboring windows with a hit. If no face is found, the picture is searched again for a
    face that fills it: in FER-2013's crops of 48x48 pixels this finds a face in three of four pictures instead of one.
    """

    def __init__(self):
        super().__init__()
        self._loaded()  # report missing files now

    def __str__(self) -> str:
        return "Haar cascades of OpenCV"

    def _load(self) -> tuple[Any, list[Any]]:
        face, *eyes = map(_cascade, (FACE_CASCADE, *EYE_CASCADES))
        return face, eyes

    def __call__(self, image: np.ndarray, /) -> list[Face]:
        gray = _gray(image)
        small, scale = _scaled(gray)
        cascade, eyes = self._loaded()
        found, border = _windows(cascade, small, SMALLEST * scale), 0
        if not found:
            border = round(BORDER * min(small.shape))
            framed = cv2.copyMakeBorder(small, border, border, border, border, cv2.BORDER_CONSTANT, value=0)
            found = _windows(cascade, framed, max(FILLING * min(small.shape), SMALLEST * scale))
        faces = []
        for hits, x, y, w, h in found:
            box = ((x - border) / scale, (y - border) / scale, w / scale, h / scale)
            faces.append(Face(box, float(hits), _eyes(gray, box, eyes)))
        return faces


class YuNet(_PerThread):
    """YuNet (Wu et al., Machine Intelligence Research 2023), a small network that also finds five points.

    Args:
        path: of its ONNX file, `face_detection_yunet_*.onnx` of OpenCV's model zoo.

    Raises:
        UserError: if the file is missing or is not YuNet.
    """

    def __init__(self, path: str | os.PathLike):
        super().__init__()
        self.path = pathlib.Path(path).expanduser()
        if not self.path.is_file():
            raise UserError(
                f"{self.path}: there is no such file; give the face_detection_yunet_*.onnx of OpenCV's model zoo, "
                "which fer-jax fetch yunet downloads"
            )
        self(np.zeros((64, 64, 3), np.uint8))  # another network loads as well, but fails when it runs

    def __str__(self) -> str:
        return f"YuNet, SHA-256 {hashlib.sha256(self.path.read_bytes()).hexdigest()}"

    def _load(self) -> Any:
        return cv2.FaceDetectorYN.create(str(self.path), "", (64, 64), score_threshold=SCORE)

    def __call__(self, image: np.ndarray, /) -> list[Face]:
        small, scale = _scaled(image)
        small = small.reshape(*small.shape[:2], -1)
        bgr = np.ascontiguousarray(np.repeat(small, 3, axis=2) if small.shape[2] == 1 else small[..., ::-1])
        try:
            model = self._loaded()
            model.setInputSize((bgr.shape[1], bgr.shape[0]))
            rows = model.detect(bgr)[1]
        except (cv2.error, SystemError) as error:
            raise UserError(
                f"{self.path} is not YuNet ({first_line(error)}); give the face_detection_yunet_*.onnx of OpenCV's "
                "model zoo"
            ) from error
        return faces_of_rows(rows, scale)


def faces_of_rows(rows: np.ndarray | None, scale: float = 1.0) -> list[Face]:
    """Returns the faces in YuNet's output, in order of decreasing confidence.

    Args:
        rows: float32 [N, 15]: x, y, w, h, then (x, y) of right eye, left eye, nose tip, right and left corner of the
            mouth, then the score; None if there are none. Rows without a positive size are left out.
        scale: the factor by which the picture was scaled for the network.
    """
    if rows is None:
        return []
    faces = []
    for row in np.asarray(rows, np.float64):
        x, y, w, h = (row[:4] / scale).tolist()
        if w > 0 and h > 0 and np.isfinite(row).all():
            faces.append(Face((x, y, w, h), float(row[14]), (row[4:14].reshape(5, 2) + 0.5) / scale - 0.5))
    return sorted(faces, key=lambda face: (-face.score, face.box))


@functools.cache
def best_detector(yunet: str | os.PathLike | None = None) -> Detector:
    """Returns YuNet, from its ONNX file if one is given, else fetched once; the cascades where it cannot be fetched.

    Raises:
        UserError: if the file is not YuNet, or if there is neither YuNet nor the cascades, which OpenCV 5 lacks.
    """
    if yunet:
        return YuNet(yunet)
    try:
        return YuNet(fetch(YUNET))
    except UserError as unreachable:
        try:
            cascades = Haar()
        except UserError:
            raise unreachable from None
        print(
            f"warning: {unreachable}. Until then OpenCV's older cascades find the faces: in 13 photos they found 24 of "
            "33 faces, with 16 false detections, where YuNet found all 33",
            file=sys.stderr,
            flush=True,
        )
        return cascades


def choose(faces: Sequence[Face], near: Box | None = None) -> Face | None:
    """Returns the largest confident face, or the one with the largest overlap with `near`; None if there are none.

    A face is not confident if it has no points and its score is below `DOUBT` times the best score: these are the
    mistakes of the cascade, which may be large.

    Args:
        faces: of one picture.
        near: a box (x, y, w, h). If no face overlaps it, one of them is returned all the same.
    """
    if not faces:
        return None
    if near is not None:
        return max(faces, key=lambda face: overlap(face.box, near))
    best = max(face.score for face in faces)
    sure = [face for face in faces if face.points is not None or face.score >= DOUBT * best]
    return max(sure, key=lambda face: (face.box[2] * face.box[3], face.score))


def overlap(first: Box, second: Box) -> float:
    """Returns the intersection over union of two boxes, 0..1."""
    (x, y, w, h), (u, v, s, t) = first, second
    across, down = min(x + w, u + s) - max(x, u), min(y + h, v + t) - max(y, v)
    shared = max(across, 0.0) * max(down, 0.0)
    return float(shared / (w * h + s * t - shared)) if shared else 0.0


def distance(first: Box, second: Box) -> float:
    """Returns the distance between the middles of two boxes, in pixels."""
    (x, y, w, h), (u, v, s, t) = first, second
    return float(np.hypot(x + w / 2 - u - s / 2, y + h / 2 - v - t / 2))


def _cascade(name: str) -> Any:
    folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
    path = pathlib.Path(folder) / name
    if not hasattr(cv2, "CascadeClassifier") or not path.is_file():
        raise UserError(f"OpenCV {cv2.__version__} comes without the cascade {name}: {OPENCV}")
    try:
        cascade = cv2.CascadeClassifier(str(path))
    except (cv2.error, SystemError):
        cascade = None
    if cascade is None or cascade.empty():
        raise UserError(f"{path} is damaged: install it again with {OPENCV}")
    return cascade


def _windows(cascade: Any, gray: np.ndarray, smallest: float) -> list[tuple[int, ...]]:
    """Returns (hits, x, y, w, h) of each window found by the cascade."""
    side = max(round(smallest), 1)
    boxes, hits = cascade.detectMultiScale2(gray, scaleFactor=FACE_STEP, minNeighbors=HITS, minSize=(side, side))
    found = [(int(n), *map(int, box)) for n, box in zip(np.ravel(hits), np.reshape(boxes, (-1, 4)), strict=True)]
    return sorted(found, key=lambda window: (-window[0], *window[1:]))  # OpenCV's threads report in any order


def _gray(image: np.ndarray) -> np.ndarray:
    if image.ndim == 3 and image.shape[2] == 3:
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    return np.ascontiguousarray(image.reshape(image.shape[:2]))


def _scaled(image: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the image scaled to sides of `SHORTEST` to `LONGEST` pixels (the upper limit wins), and its scale."""
    height, width = image.shape[:2]
    scale = min(max(1.0, SHORTEST / min(height, width)), LONGEST / max(height, width))
    if scale == 1.0:
        return image, scale
    shape = (max(round(width * scale), 1), max(round(height * scale), 1))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), shape, interpolation=how), scale


def _eyes(gray: np.ndarray, box: tuple[float, float, float, float], cascades: Sequence[Any]) -> np.ndarray | None:
    """Returns the middles of right and left eye, [2, 2], of the face in `box`, or None.

    The face is first scaled to a fixed width, so that small and large faces are treated alike.
    """
    x, y, w, _ = box
    left, top = max(round(x), 0), max(round(y + EYE_ROWS[0] * w), 0)
    right, bottom = min(round(x + w), gray.shape[1]), min(round(y + EYE_ROWS[1] * w), gray.shape[0])
    scale = EYE_WIDTH / w
    shape = (round((right - left) * scale), round((bottom - top) * scale))
    if min(shape) < EYE_SIZES[1] * EYE_WIDTH:
        return None
    upper = cv2.resize(
        gray[top:bottom, left:right], shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    least, most = (round(share * EYE_WIDTH) for share in EYE_SIZES)
    for cascade in cascades:
        windows, hits = cascade.detectMultiScale2(
            upper, scaleFactor=EYE_STEP, minNeighbors=EYE_HITS, minSize=(least, least), maxSize=(most, most)
        )
        windows = np.reshape(np.asarray(windows, np.float64), (-1, 4))
        # Scaling keeps pixel edges in place, not pixel centers.
        middles = (windows[:, :2] + windows[:, 2:] / 2) / scale + (left - 0.5, top - 0.5)
        pair = _pair(middles, np.ravel(hits).astype(int), box)
        if pair is not None:
            return pair
    return None


def _pair(middles: np.ndarray, hits: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray | None:
    """Returns the plausible pair of eyes among `middles` [N, 2] whose weaker eye has the most hits, or None."""
    x, y, w, _ = box
    share = (middles + 0.5 - (x, y)) / w
    low, high = EYE_COLUMNS
    pairs = []
    for i, j in itertools.permutations(range(len(share)), 2):
        across, down = share[j] - share[i]
        placed = low < share[i, 0] < high and low < 1 - share[j, 0] < high
        apart = across > 0 and EYE_DISTANCES[0] < np.hypot(across, down) < EYE_DISTANCES[1]
        if placed and apart and abs(down) < EYE_TILT * across:
            order = (min(hits[i], hits[j]), max(hits[i], hits[j]), *(-middles[i]), *(-middles[j]))
            pairs.append((tuple(map(float, order)), i, j))
    if not pairs:
        return None
    _, i, j = max(pairs)
    return middles[[i, j]]
