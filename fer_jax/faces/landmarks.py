"""68 landmarks, in iBUG order, of the face in a picture.

YuNet finds the face and five points of it. dlib's regression trees (Kazemi and Sullivan, CVPR 2014) place the 68 points
in a square at YuNet's box. The two have learned from different pictures, so a face counts as found only where they
agree: the middles of both eyes, the tip of the nose and the corners of the mouth lie, in the mean of the five, at most
`TOLERANCE` of the side of YuNet's box apart. It also fills enough of the picture.

The trees were trained on iBUG 300-W, whose license forbids commercial use (`LICENSE`).
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
from typing import Any

import cv2
import numpy as np

from fer_jax.errors import UserError
from fer_jax.faces.detection import Face, YuNet, choose
from fer_jax.faces.fetch import YUNET, fetch

LICENSE = "dlib's model of 68 points was trained on iBUG 300-W, whose license forbids commercial use"
MODEL = "shape_predictor_68_face_landmarks.dat"
SHORTEST = 192  # smaller pictures are enlarged to this side for dlib: those of 48 pixels four times
SIDE, LOWER = 1.0, 0.05  # of dlib's square: in sides of YuNet's box, and how much of its height lower
TOLERANCE = 0.12  # half of FER-2013's faces agree to 0.076; of those beyond most are turned away, tilted or covered
SMALLEST = 0.05  # share of the image's side that the landmarks of a face must reach across
OUTSIDE = 1 / 3  # share of the landmarks that may lie outside of the image: a tight crop cuts the line of the jaw


class Landmarks:
    """Finds the landmarks of the largest face of a picture.

    Args:
        yunet: file of the detector; fetched once if it is None.

    Raises:
        UserError: if the extra `[landmarks]` is not installed, or the detector cannot be had.
    """

    def __init__(self, yunet: str | os.PathLike | None = None):
        spec = importlib.util.find_spec("face_recognition_models")  # importing it needs setuptools
        folders = (spec and spec.submodule_search_locations) or [""]
        model = pathlib.Path(folders[0]) / "models" / MODEL
        try:
            import dlib
        except ImportError:
            dlib = None
        if dlib is None or not model.is_file():
            raise UserError("finding landmarks needs dlib and its model: pip install 'fer_jax[landmarks]'")
        self.detector = YuNet(yunet or fetch(YUNET))
        self._rectangle: Any = dlib.rectangle
        self._predictor: Any = dlib.shape_predictor(str(model))
        self._name = f"{self.detector}; dlib {dlib.__version__}, {MODEL}"

    def __str__(self) -> str:
        return self._name

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        """Returns float32 [68, 2], (x, y) in pixels of an image uint8 [H, W, 1 or 3], or None where none are found."""
        face = choose(self.detector(image))
        if face is None:
            return None
        points = self.place(image, face)
        outside = ((points < -0.5) | (points > np.array(image.shape[1::-1]) - 0.5)).any(axis=1).mean()
        fits = outside <= OUTSIDE and np.ptp(points, axis=0).max() >= SMALLEST * max(image.shape[:2])
        return points if fits and disagreement(points, face) <= TOLERANCE else None

    def place(self, image: np.ndarray, face: Face) -> np.ndarray:
        """Returns where dlib places the 68 points of a face, float32 [68, 2]."""
        scale = max(1.0, SHORTEST / min(image.shape[:2]))
        plain = np.ascontiguousarray(image[..., 0] if image.shape[-1] == 1 else image)
        large = cv2.resize(plain, None, fx=scale, fy=scale) if scale > 1 else plain
        x, y, w, h = face.box
        half, middle = SIDE * np.sqrt(w * h) / 2, np.array([x + (w - 1) / 2, y + (h - 1) / 2 + LOWER * h])
        corners = (np.array([middle - half, middle + half]) + 0.5) * scale - 0.5
        left, top, right, bottom = np.rint(corners.ravel()).astype(int).tolist()
        shape = self._predictor(large, self._rectangle(left, top, right, bottom))
        points = np.array([(part.x, part.y) for part in shape.parts()])
        return ((points + 0.5) / scale - 0.5).astype(np.float32)


def disagreement(points: np.ndarray, face: Face) -> float:
    """Returns the mean distance of five of the 68 points [68, 2] to YuNet's, in sides of its box."""
    assert face.points is not None  # YuNet has them always
    five = np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[30], points[48], points[54]])
    return float(np.linalg.norm(five - face.points, axis=1).mean() / np.sqrt(face.box[2] * face.box[3]))
