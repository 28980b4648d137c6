"""Painting with coverage: a batch of pictures, windows into them, and soft shapes.

Planes come first, [3, B, H, W], so that every operation runs over contiguous float32 rows. Small features
are painted in windows of fixed size cut around them: a mouth then costs a fifth of the picture.
"""

from __future__ import annotations

import dataclasses

import numpy as np

Color = np.ndarray | tuple[float, float, float]


def ramp(distance: np.ndarray) -> np.ndarray:
    """Coverage of a pixel whose center lies `distance` pixels inside an edge."""
    return np.minimum(np.maximum(distance + np.float32(0.5), np.float32(0)), np.float32(1))


def smooth(t: np.ndarray) -> np.ndarray:
    """The cubic step from 0 (t <= 0) to 1 (t >= 1)."""
    t = np.minimum(np.maximum(t, np.float32(0)), np.float32(1))
    return t * t * (np.float32(3) - np.float32(2) * t)


def bump(square: np.ndarray) -> np.ndarray:
    """A soft spot, from 1 where `square` is 0 to 0 where it reaches 1."""
    rest = np.maximum(np.float32(1) - square, np.float32(0))
    return rest * rest


def column(values: np.ndarray) -> np.ndarray:
    """Returns [B] as [B, 1, 1], or [3, B] as [3, B, 1, 1]."""
    return values[..., None, None]


@dataclasses.dataclass(frozen=True)
class Patch:
    """Pictures [3, B, h, w] with the face coordinates of their pixels and pixels per face unit [B, 1, 1]."""

    rgb: np.ndarray
    x: np.ndarray
    y: np.ndarray
    qx: np.ndarray  # offset from the head's axis, for features off the sheet
    qy: np.ndarray
    scale: np.ndarray

    def edge(self, distance: np.ndarray) -> np.ndarray:
        """Coverage from a distance in face units (positive inside)."""
        return ramp(distance * self.scale)

    def paint(self, coverage: np.ndarray, color: Color) -> None:
        """Covers with a color: [3, B], [3, B, h, w] or one for all."""
        if isinstance(color, tuple):
            color = np.array(color, np.float32)[:, None]
        if color.ndim == 2:
            color = column(color)
        for plane, value in zip(self.rgb, color, strict=True):
            plane += coverage * (value - plane)

    def shade(self, strength: np.ndarray, tint: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
        """Darkens by 1 - strength * tint per channel (negative strength: lightens)."""
        for plane, weight in zip(self.rgb, tint, strict=True):
            plane *= np.float32(1) - strength * np.float32(weight)

    def window(self, center: np.ndarray, height: int, width: int) -> Window:
        """Cuts windows of one size around [B, 2] pixels, moved inwards where they would leave the picture."""
        rows, columns = self.x.shape[1:]
        height, width = min(height, rows), min(width, columns)
        left = np.floor(center[:, 0] - np.float32(width / 2 - 0.5)).astype(np.int64)
        top = np.floor(center[:, 1] - np.float32(height / 2 - 0.5)).astype(np.int64)
        left = np.minimum(np.maximum(left, 0), columns - width)
        top = np.minimum(np.maximum(top, 0), rows - height)
        slices = [
            (i, slice(t, t + height), slice(c, c + width))
            for i, (t, c) in enumerate(zip(top.tolist(), left.tolist(), strict=True))
        ]

        def cut(plane: np.ndarray) -> np.ndarray:
            return np.stack([plane[s] for s in slices])

        rgb = np.stack([cut(plane) for plane in self.rgb])
        return Window(rgb, cut(self.x), cut(self.y), cut(self.qx), cut(self.qy), self.scale, slices)

    def paste(self, window: Window) -> None:
        """Puts a painted window back."""
        for plane, part in zip(self.rgb, window.rgb, strict=True):
            for i, where in enumerate(window.slices):
                plane[where] = part[i]


@dataclasses.dataclass(frozen=True)
class Window(Patch):
    """A patch that remembers where it was cut."""

    slices: list[tuple[int, slice, slice]]
