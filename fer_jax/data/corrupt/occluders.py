"""Objects that cover faces: a training bank and a test bank without a common kind."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fer_jax.randomness import Purpose, Stream, cosine, sine

BANKS: dict[str, tuple[str, ...]] = {
    "train": ("book", "mug", "ball", "scarf", "comb", "hat brim"),
    "test": ("hand", "phone", "sunglasses", "surgical mask", "leaf", "bottle"),
}
KINDS: tuple[str, ...] = BANKS["train"] + BANKS["test"]


@dataclasses.dataclass(frozen=True)
class Occluder:
    """B objects.

    Attributes:
        kind: int64 [B], index into `KINDS`.
        x, y, half: float32 [B], center and half side in pixels.
        turn: float32 [B], rotation in radians.
        color, accent, skin: float32 [3, B] in 0 .. 1; `skin` is the color of hands.
    """

    kind: np.ndarray
    x: np.ndarray
    y: np.ndarray
    half: np.ndarray
    turn: np.ndarray
    color: np.ndarray
    accent: np.ndarray
    skin: np.ndarray


def sample_occluder(seed: int, bank: str, index: np.ndarray, pose: Any) -> Occluder:
    """Draws objects of a bank in front of faces, about as large as in the protocol of Li et al. (2019).

    Args:
        seed: of the data set.
        bank: 'train' or 'test'.
        index: int [B], the examples.
        pose: of the faces: yaw, roll (radians), scale (pixels), x, y (pixels), each [B].
    """
    kinds = BANKS[bank]
    first = KINDS.index(kinds[0])
    s = Stream(seed, Purpose.OCCLUDER, index, capacity=32)
    kind = first + s.integer(len(kinds))
    placed = np.isin(kind, [KINDS.index("sunglasses"), KINDS.index("surgical mask"), KINDS.index("hat brim")])
    reach = np.where(placed, 0.12, 1.0)
    home = np.zeros(len(kind))
    for name, height in (("sunglasses", 0.02), ("surgical mask", 0.95), ("hat brim", -0.55), ("scarf", 1.0)):
        home = np.where(kind == KINDS.index(name), height, home)
    free = np.where(placed | (kind == KINDS.index("scarf")), 0.0, 1.0)
    across = reach * s.uniform(-0.75, 0.75)
    down = home - 0.30 + free * s.uniform(-0.45, 1.35) + (1 - free) * s.uniform(-0.05, 0.05)
    roll = pose.roll.astype(np.float64)
    scale = pose.scale.astype(np.float64)
    color = np.stack([s.uniform(0.05, 0.95) for _ in range(3)])
    accent = np.stack([s.uniform(0.05, 0.95) for _ in range(3)])
    tone = s.uniform(0.35, 1.0)
    values = dict(
        x=pose.x + scale * (across * cosine(roll) - down * sine(roll)) + scale * 0.55 * sine(pose.yaw),
        y=pose.y + scale * (across * sine(roll) + down * cosine(roll)),
        half=scale * np.where(placed, 1.0, s.uniform(0.66, 0.92)),
        turn=np.where(placed, roll, s.uniform(-1.2, 1.2)),
        color=color,
        accent=accent,
        skin=np.stack([0.95 * tone, 0.74 * tone, 0.60 * tone]),
    )
    return Occluder(kind=kind, **{name: value.astype(np.float32) for name, value in values.items()})


def _box(u: np.ndarray, v: np.ndarray, a: float, b: float, corner: float = 0.05) -> np.ndarray:
    """Returns the distance inside a rounded rectangle with half sides a and b."""
    du, dv = np.maximum(np.abs(u) - (a - corner), 0), np.maximum(np.abs(v) - (b - corner), 0)
    inner = np.minimum(a - np.abs(u), b - np.abs(v))
    return np.where(du + dv > 0, corner - np.sqrt(du * du + dv * dv), inner).astype(np.float32)


def _disc(u: np.ndarray, v: np.ndarray, a: float, b: float) -> np.ndarray:
    """Returns the approximate distance inside an ellipse."""
    return (1 - np.sqrt((u / a) ** 2 + (v / b) ** 2)) * min(a, b)


def _bar(u: np.ndarray, v: np.ndarray, end: tuple[float, float], width: float) -> np.ndarray:
    """Returns the distance inside a thick line from the origin to `end`."""
    length = end[0] * end[0] + end[1] * end[1]
    t = np.minimum(np.maximum((u * end[0] + v * end[1]) / length, 0), 1)
    return width - np.sqrt((u - t * end[0]) ** 2 + (v - t * end[1]) ** 2)


def _stripes(t: np.ndarray) -> np.ndarray:
    return (t - np.floor(t) > 0.5).astype(np.float32)


def _shape(kind: str, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distance inside the object, in half sides, and where it has its second color."""
    if kind == "book":
        return _box(u, v, 0.75, 1.0), np.maximum((np.abs(v + 0.35) < 0.18) * (np.abs(u) < 0.5), u < -0.62)
    if kind == "mug":
        handle = 0.09 - np.abs(np.sqrt((u - 0.72) ** 2 + v * v) - 0.34)
        return np.maximum(_box(u, v, 0.72, 0.85, 0.12), handle), (np.abs(v) < 0.2) * 1.0
    if kind == "ball":
        return _disc(u, v, 0.9, 0.9), _stripes(u * 1.6 + 0.5 * v * v)
    if kind == "scarf":
        return _box(u, v + 0.10 * u * u, 1.6, 0.52, 0.15), _stripes(u * 2.1)
    if kind == "comb":
        teeth = _box(u, v - 0.1, 1.1, 0.34)
        gaps = (v > -0.05) & (_stripes(u * 4.0) > 0)
        return np.where(gaps, np.minimum(teeth, -0.02), np.maximum(teeth, _box(u, v + 0.2, 1.15, 0.22))), v < -0.25
    if kind == "hat brim":
        return np.maximum(_disc(u, v + 0.05, 1.45, 0.36), _box(u, v + 0.65, 0.95, 0.6, 0.2)), np.abs(v + 0.3) < 0.12
    if kind == "hand":
        reach = ((-0.42, 0.0), (-0.15, 0.17), (0.13, 0.13), (0.40, -0.08))
        fingers = [_bar(u - x, v - 0.1, (x * 0.55, -0.85 - top), 0.135) for x, top in reach]
        thumb = _bar(u + 0.42, v - 0.55, (-0.50, -0.45), 0.14)
        palm = _disc(u, v - 0.45, 0.58, 0.56)
        distance = np.maximum(palm, thumb)
        for finger in fingers:
            distance = np.maximum(distance, finger)
        gap = np.minimum(np.minimum(np.abs(u + 0.29), np.abs(u)), np.abs(u - 0.28)) < 0.03
        return distance, gap & (v < 0.2)
    if kind == "phone":
        return _box(u, v, 0.52, 1.0, 0.12), _box(u, v, 0.44, 0.80, 0.03) > 0
    if kind == "sunglasses":
        left, right = _box(u + 0.46, v, 0.40, 0.31, 0.2), _box(u - 0.46, v, 0.40, 0.31, 0.2)
        return np.maximum(np.maximum(left, right), _box(u, v + 0.1, 1.02, 0.06)), np.zeros_like(u)
    if kind == "surgical mask":
        cloth = _box(u * (1 + 0.12 * v), v, 0.86, 0.58, 0.3)
        straps = 0.03 - np.abs(np.abs(v) + 0.30 * (np.abs(u) - 0.86) - 0.36)
        return np.maximum(cloth, np.where(np.abs(u) < 1.1, straps, -1)), _stripes(v * 3.2)
    if kind == "leaf":
        half = 0.55 * np.maximum(1 - v * v, 0)
        veins = (np.abs(u) < 0.03) | ((_stripes(v * 3 + np.abs(u) * 3) > 0) & (u > 0))
        return np.where(np.abs(v) < 1, (half - np.abs(u)) * 0.9, -1), veins
    if kind == "bottle":
        return np.maximum(_box(u, v - 0.35, 0.38, 0.68, 0.12), _box(u, v + 0.6, 0.15, 0.45)), np.abs(v - 0.35) < 0.25
    raise ValueError(f"unknown occluder '{kind}'")


def cover(rgb: np.ndarray, occluder: Occluder) -> np.ndarray:
    """Paints objects into images, float32 [3, B, H, W] in 0 .. 1, in place; returns the changed pixels [B, H, W]."""
    before = rgb.copy()
    rows, columns = (np.arange(size, dtype=np.float32) for size in rgb.shape[-2:])
    cos, sin = cosine(occluder.turn).astype(np.float32), sine(occluder.turn).astype(np.float32)
    for i, number in enumerate(occluder.kind.tolist()):  # one object per image
        dx = (columns[None, :] - occluder.x[i]) / occluder.half[i]
        dy = (rows[:, None] - occluder.y[i]) / occluder.half[i]
        u, v = cos[i] * dx + sin[i] * dy, cos[i] * dy - sin[i] * dx
        kind = KINDS[number]
        inside, second = _shape(kind, u, v)
        coverage = np.minimum(np.maximum(inside * occluder.half[i] + np.float32(0.5), np.float32(0)), np.float32(1))
        first, other = occluder.color[:, i], occluder.accent[:, i]
        if kind == "hand":
            first, other = occluder.skin[:, i], occluder.skin[:, i] * np.float32(0.7)
        elif kind == "sunglasses":
            first = other = occluder.color[:, i] * np.float32(0.25)
        elif kind == "surgical mask":
            first, other = np.float32(0.65) + first * np.float32(0.3), np.float32(0.58) + first * np.float32(0.3)
        shade = np.float32(1) + np.float32(0.18) * np.minimum(np.maximum(u - v, -1), 1)
        weight = second.astype(np.float32)
        for plane in range(3):
            color = (first[plane] + weight * (other[plane] - first[plane])) * shade
            rgb[plane, i] += coverage * (np.minimum(color, 1) - rgb[plane, i])
    changed = rgb != before
    return changed[0] | changed[1] | changed[2]
