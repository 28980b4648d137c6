"""An independent check of the landmarks: find the parts in the drawn pixels and compare.

A face is drawn in false colors (white eyes or lips on a black face, or a bright face before a dark world),
the part is cut out by a threshold, and its extreme points are compared with the landmarks. Nothing here
uses the curves.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfds_builders.synthetic_faces.expressions import RECIPES
from tfds_builders.synthetic_faces.geometry import build_face, landmarks
from tfds_builders.synthetic_faces.head import Light
from tfds_builders.synthetic_faces.identity import BALD
from tfds_builders.synthetic_faces.renderer import paint
from tfds_builders.synthetic_faces.scene import Scene, sample_scene

BLACK, WHITE = 0.0, 1.0
EYES = ((36, 39), (42, 45))
LIDS = (37, 38, 40, 41, 43, 44, 46, 47)
LIPS = (49, 50, 52, 53, 51, 55, 56, 57, 58, 59)
JAW = tuple(range(2, 15))


def _plain(scene: Scene, skin: float, lips: float, iris: float, hair: float) -> Scene:
    """Returns the scene with flat light, no accessories and false colors."""
    zero = np.zeros_like(scene.light.side)
    tone = {
        name: np.full_like(scene.who.skin, value)
        for name, value in (
            ("skin", skin),
            ("lips", lips),
            ("iris", iris),
            ("hair", hair),
            ("clothes", BLACK),
        )
    }
    who = dataclasses.replace(
        scene.who,
        **tone,
        glasses=zero,
        beard=zero,
        moustache=zero,
        age=zero,
        hair_style=np.full_like(scene.who.hair_style, BALD),
    )
    light = Light(side=zero, above=zero, rim=zero, exposure=zero + 1, warmth=zero, contrast=zero + 1)
    return dataclasses.replace(scene, who=who, light=light)


def _extreme(mask: np.ndarray, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Returns the point of a mask [H, W] that lies farthest in a direction, x and y."""
    rows, columns = np.nonzero(mask)
    points = np.stack([columns, rows], axis=-1)
    return points[np.argmax((points - origin) @ direction)].astype(float)


def _to_edge(mask: np.ndarray, point: np.ndarray) -> float:
    """Returns the distance from a point to the nearest border between inside and outside of a mask [H, W]."""
    inner = mask.astype(np.int8)
    rows, columns = np.nonzero(inner[:, 1:] != inner[:, :-1])
    borders = [np.stack([columns + 0.5, rows], axis=-1)]
    rows, columns = np.nonzero(inner[1:] != inner[:-1])
    borders.append(np.stack([columns, rows + 0.5], axis=-1))
    return float(np.sqrt(((np.concatenate(borders) - point) ** 2).sum(axis=1)).min())


def _near(shape: tuple[int, int], center: np.ndarray, reach: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return (columns - center[0]) ** 2 + (rows - center[1]) ** 2 < reach * reach


def landmark_errors(faces: int, size: int, magnify: int = 4) -> dict[str, dict[str, float]]:
    """Measures how far landmarks are from the parts found in the pixels.

    Args:
      faces: number of faces, over all poses and the 22 categories.
      size: side of the stored picture.
      magnify: the parts are sought in pictures this many times larger, since a part found by threshold is
        only exact to about a pixel itself.

    Returns:
      For each group of points the mean and the largest distance, in pixels of the stored picture.
    """
    found: dict[str, list[float]] = {name: [] for name in ("eye corners", "lids", "mouth corners", "lips", "jaw")}
    for first in range(0, faces, 20):
        index = np.arange(first, min(first + 20, faces))
        scene = sample_scene(1, size * magnify, index, index, index % len(RECIPES))
        points = landmarks(build_face(scene.who, scene.units, scene.lopsided), scene.pose).astype(float)

        def drawn(scene: Scene = scene, **colors: float) -> np.ndarray:
            plain = _plain(scene, **colors)
            return paint(plain, build_face(plain.who, plain.units, plain.lopsided))[1]

        eyes = drawn(skin=BLACK, lips=BLACK, iris=WHITE, hair=BLACK)
        lips = np.abs(
            drawn(skin=0.5, lips=WHITE, iris=BLACK, hair=BLACK) - drawn(skin=0.5, lips=BLACK, iris=BLACK, hair=BLACK)
        )
        skin = np.abs(
            drawn(skin=WHITE, lips=BLACK, iris=BLACK, hair=BLACK)
            - drawn(skin=BLACK, lips=BLACK, iris=BLACK, hair=BLACK)
        )
        for i, p in enumerate(points):
            for corners in EYES:
                center = 0.5 * (p[corners[0]] + p[corners[1]])
                reach = np.sqrt(((p[corners[0]] - center) ** 2).sum())
                mask = (eyes[i] > 0.12) & _near(eyes[i].shape, center, 1.35 * reach)
                for corner in corners:
                    tip = _extreme(mask, center, p[corner] - center)
                    found["eye corners"].append(float(np.sqrt(((tip - p[corner]) ** 2).sum())))
            for lid in LIDS:
                found["lids"].append(_to_edge(eyes[i] > 0.4, p[lid]))
            middle = 0.5 * (p[48] + p[54])
            for corner in (48, 54):
                tip = _extreme(lips[i] > 0.15, middle, p[corner] - middle)
                found["mouth corners"].append(float(np.sqrt(((tip - p[corner]) ** 2).sum())))
            found["lips"].extend(_to_edge(lips[i] > 0.4, p[k]) for k in LIPS)
            visible = [k for k in JAW if (p[k] >= 2).all() and (p[k] < size * magnify - 2).all()]
            found["jaw"].extend(_to_edge(skin[i] > 0.86, p[k]) for k in visible)
    return {
        name: {
            "mean": round(float(np.mean(values)) / magnify, 3),
            "max": round(float(np.max(values)) / magnify, 3),
        }
        for name, values in found.items()
    }
