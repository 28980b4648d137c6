"""The shape of one face: curves in face coordinates that action units move, and the landmarks on them.

Face coordinates: x to the right of the picture, y down, origin between the eyes, unit = half an average
face width. The renderer draws exactly these curves and `landmarks` samples exactly these curves, which is
why the landmarks are right to a fraction of a pixel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from fer_jax.randomness import PI, cosine, sine
from tfds_builders.synthetic_faces.expressions import AU_COLUMN
from tfds_builders.synthetic_faces.identity import Identity
from tfds_builders.synthetic_faces.pose import Pose, project

Group = TypeVar("Group")


def expand(group: Group, dims: int) -> Group:
    """Returns the dataclass with `dims` axes of length one appended to every [B] array."""
    values = {
        f.name: (v := getattr(group, f.name)).reshape(v.shape + (1,) * dims)
        for f in dataclasses.fields(group)  # pyright: ignore[reportArgumentType]
    }
    return dataclasses.replace(group, **values)  # pyright: ignore[reportArgumentType, reportReturnType]


@dataclasses.dataclass(frozen=True)
class Head:
    """The outline: an ellipse above `middle`; below it one that the jaw widens or narrows."""

    width: np.ndarray
    top: np.ndarray
    chin: np.ndarray
    jaw: np.ndarray
    middle: np.ndarray

    def radius(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns 1 on the outline, less inside."""
        down = y - self.middle
        t = np.where(down > 0, down / (self.chin - self.middle), down / (self.top - self.middle))
        t2 = t * t
        wide = self.width * np.where(down > 0, 1 + self.jaw * t2 * np.maximum(1 - t2, 0), 1)
        return np.sqrt((x / wide) ** 2 + t2)

    def outline(self, sin: np.ndarray, cos: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (x, y) of the outline at an angle below the horizontal."""
        t2 = sin * sin
        wide = self.width * np.where(sin > 0, 1 + self.jaw * t2 * (1 - t2), 1)
        return side * wide * cos, self.middle + sin * np.where(sin > 0, self.chin - self.middle, self.middle - self.top)


@dataclasses.dataclass(frozen=True)
class Eye:
    """Local coordinate u runs from -1 (inner corner) to +1 (outer corner)."""

    side: np.ndarray  # -1 left in the picture, +1 right
    x: np.ndarray
    y: np.ndarray
    width: np.ndarray  # half of it
    tilt: np.ndarray
    up: np.ndarray  # rise of the upper lid
    low: np.ndarray  # drop of the lower lid

    def local(self, x: np.ndarray) -> np.ndarray:
        return (x - self.x) * self.side / self.width

    def corner_line(self, u: np.ndarray) -> np.ndarray:
        return self.y + self.tilt * self.width * u

    @staticmethod
    def profile(u: np.ndarray) -> np.ndarray:
        u2 = u * u
        return (1 - u2) * (1 + 0.45 * u2)

    def upper(self, u: np.ndarray) -> np.ndarray:
        return self.corner_line(u) - self.up * self.profile(u)

    def lower(self, u: np.ndarray) -> np.ndarray:
        return self.corner_line(u) + self.low * self.profile(u)


@dataclasses.dataclass(frozen=True)
class Brow:
    """A parabola through three heights; u from -1 (inner end) to +1 (outer end)."""

    side: np.ndarray
    x: np.ndarray
    width: np.ndarray
    inner: np.ndarray
    center: np.ndarray
    outer: np.ndarray
    thickness: np.ndarray

    def local(self, x: np.ndarray) -> np.ndarray:
        return (x * self.side - self.x) / self.width

    def middle(self, u: np.ndarray) -> np.ndarray:
        bend = 0.5 * (self.inner + self.outer) - self.center
        return self.center + 0.5 * (self.outer - self.inner) * u + bend * u * u


@dataclasses.dataclass(frozen=True)
class Nose:
    root: np.ndarray
    tip: np.ndarray  # y of the tip
    base: np.ndarray  # y of the base
    width: np.ndarray  # half of it, at the wings
    height: np.ndarray  # how far the tip stands out
    wrinkle: np.ndarray


@dataclasses.dataclass(frozen=True)
class Mouth:
    """Local coordinate u from -1 (left corner in the picture) to +1; the lips are four curves over u."""

    y: np.ndarray
    width: np.ndarray  # half of it
    corner: np.ndarray  # drop of the corners (negative: raised)
    skew: np.ndarray
    upper: np.ndarray  # thickness of the lips
    lower: np.ndarray
    open_up: np.ndarray  # half-openings at the center
    open_low: np.ndarray
    sneer: np.ndarray  # squareness of the raised upper lip

    INNER = 0.93  # the opening ends here

    def line(self, u: np.ndarray) -> np.ndarray:
        u2 = u * u
        return self.y + self.corner * u2 + self.skew * u

    def curves(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns the heights of the outer upper, inner upper, inner lower and outer lower curve."""
        u2 = u * u
        line = self.line(u)
        full = np.maximum(1 - u2, 0)
        inner = np.maximum(1 - u2 / (self.INNER * self.INNER), 0)
        bow = 1 - 0.30 * np.maximum(1 - u2 * 14, 0)  # the dip of Cupid's bow
        inner_up = self.open_up * inner * (1 + self.sneer * u2)
        inner_low = self.open_low * inner
        return (
            line - inner_up - self.upper * full * bow * (1 + 0.4 * u2),
            line - inner_up,
            line + inner_low,
            line + inner_low + self.lower * full,
        )


@dataclasses.dataclass(frozen=True)
class Face:
    head: Head
    eyes: tuple[Eye, Eye]
    brows: tuple[Brow, Brow]
    nose: Nose
    mouth: Mouth

    def expanded(self, dims: int) -> Face:
        """Returns the face with every array ready to broadcast over `dims` more axes."""
        return Face(
            expand(self.head, dims),
            (expand(self.eyes[0], dims), expand(self.eyes[1], dims)),
            (expand(self.brows[0], dims), expand(self.brows[1], dims)),
            expand(self.nose, dims),
            expand(self.mouth, dims),
        )


def _single(**values: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, np.float32) for name, value in values.items()}


Movement = Callable[..., np.ndarray]  # (action unit, side of the picture, 0 for both) -> how far each moves, [B]


def build_face(who: Identity, units: np.ndarray, lopsided: np.ndarray) -> Face:
    """Moves a person's resting face by action units.

    Args:
      who: B people.
      units: [B, n] action units, 0..1, columns as in `AU_IDS`.
      lopsided: [B] share by which the right half of the picture moves more (and the left less).
    """

    def au(unit: int, side: float = 0.0) -> np.ndarray:
        return units[:, AU_COLUMN[unit]] * (1 + side * lopsided)

    eyes = _eye(who, au, -1.0), _eye(who, au, 1.0)
    brows = _brow(who, au, -1.0), _brow(who, au, 1.0)
    return Face(_head(who, au), eyes, brows, _nose(who, au), _mouth(who, au, lopsided))


def _head(who: Identity, au: Movement) -> Head:
    length = who.face_length
    return Head(
        **_single(
            width=who.face_width * (1 - 0.03 * au(26)),
            top=-who.skull,
            chin=1.40 * length + 0.28 * au(26) + 0.04 * au(25) - 0.05 * au(17) - 0.02 * au(24),
            jaw=who.jaw,
            middle=0.12 + 0 * length,
        )
    )


def _eye(who: Identity, au: Movement, side: float) -> Eye:
    raised, tight, cheek = au(5, side), au(7, side), au(6, side)
    up = 0.105 * who.eye_opening + 0.100 * raised - 0.052 * tight - 0.012 * cheek - 0.035 * au(9, side)
    low = 0.068 * who.eye_opening + 0.012 * raised - 0.042 * tight - 0.066 * cheek - 0.028 * au(9, side)
    up = up + 0.014 * au(1, side) + 0.014 * au(2, side) - 0.014 * au(4, side)
    low = np.maximum(low, -0.005)
    return Eye(
        **_single(
            side=side + 0 * up,
            x=side * who.eye_spacing,
            y=-0.012 * cheek,
            width=who.eye_width,
            tilt=who.eye_tilt,
            up=np.maximum(up, 0.045 - low),  # however tight, the lids never cross
            low=low,
        )
    )


def _brow(who: Identity, au: Movement, side: float) -> Brow:
    inner_up, outer_up, down, wrinkle = au(1, side), au(2, side), au(4, side), au(9, side)
    rest = -who.brow_height
    return Brow(
        **_single(
            side=side + 0 * rest,
            x=0.45 - 0.035 * down,
            width=0.30 + 0 * rest,
            inner=rest + who.brow_tilt - 0.215 * inner_up - 0.04 * outer_up + 0.155 * down + 0.105 * wrinkle,
            center=rest - who.brow_arch - 0.085 * inner_up - 0.170 * outer_up + 0.11 * down + 0.06 * wrinkle,
            outer=rest - 0.5 * who.brow_tilt + 0.06 - 0.190 * outer_up + 0.02 * inner_up + 0.025 * down,
            thickness=who.brow_thickness,
        )
    )


def _nose(who: Identity, au: Movement) -> Nose:
    length = who.face_length
    lifted = 0.045 * au(9) + 0.018 * au(10)
    return Nose(
        **_single(
            root=0.0 * length,
            tip=(who.nose_length - 0.07) * length - lifted,
            base=who.nose_length * length - lifted,
            width=who.nose_width * (1 + 0.16 * au(9) + 0.07 * au(10) + 0.06 * au(12)),
            height=0.26 + 0 * length,
            wrinkle=au(9),
        )
    )


def _mouth(who: Identity, au: Movement, lopsided: np.ndarray) -> Mouth:
    pressed = np.minimum(0.75 * au(24) + 0.45 * au(23), 0.85)
    part = au(25)
    return Mouth(
        **_single(
            y=who.mouth_height * who.face_length
            + 0.05 * au(26)
            - 0.035 * au(17)
            - 0.02 * au(10)
            - 0.015 * au(9)
            - 0.01 * au(12),
            width=who.mouth_width
            * (1 + 0.34 * au(12) + 0.34 * au(20) - 0.14 * au(24) - 0.14 * au(23) - 0.10 * au(26) - 0.06 * au(17)),
            corner=who.resting_corner
            - 0.200 * au(12)
            + 0.190 * au(15)
            + 0.05 * au(20)
            + 0.045 * au(17)
            + 0.03 * au(10)
            + 0.02 * au(26),
            skew=0.03 * lopsided * (au(12) + au(15) + au(20) + au(10)),
            upper=who.upper_lip * (1 - pressed) * (1 - 0.22 * au(12) - 0.15 * au(20)),
            lower=who.lower_lip * (1 - pressed) * (1 - 0.12 * au(12) - 0.15 * au(20)) + 0.03 * au(17),
            open_up=0.030 * part + 0.035 * au(26) + part * (0.02 * au(12) + 0.035 * au(10)) + 0.065 * au(10),
            open_low=0.060 * part + 0.260 * au(26) + part * (0.055 * au(12) + 0.03 * au(20)),
            sneer=1.1 * au(10),
        )
    )


# Angles (below the horizontal through the head's middle) of the jaw points 0..7; point 8 is the chin.
_JAW_ANGLES = np.array([-0.08, 0.06, 0.20, 0.36, 0.54, 0.76, 1.00, 1.28])
_BROW_U = np.array([-1.0, -0.5, 0.0, 0.5, 1.0], np.float32)
_EYE_U = np.array([-1.0, -0.38, 0.38, 1.0], np.float32)
_OUTER_U = np.array([-1.0, -0.62, -0.25, 0.0, 0.25, 0.62, 1.0], np.float32)
_OUTER_LOW_U = np.array([0.62, 0.27, 0.0, -0.27, -0.62], np.float32)
_INNER_U = np.array([-Mouth.INNER, -0.42, 0.0, 0.42, Mouth.INNER], np.float32)
_INNER_LOW_U = np.array([0.42, 0.0, -0.42], np.float32)


def landmarks(face: Face, pose: Pose) -> np.ndarray:
    """Returns the 68 points in iBUG order, [B, 68, 2] float32: x, y in pixels, pixel centers at integers.

    Brow points lie on the brow's center line; jaw points on the drawn outline of the face, hidden or not.
    """
    f = face.expanded(1)
    ones = np.ones_like(f.head.width)
    groups: list[tuple[np.ndarray, np.ndarray, Any]] = []

    def add(x: np.ndarray, y: np.ndarray, relief: Any = None) -> None:
        x, y = np.broadcast_arrays(x, y)
        groups.append((x, y, relief))

    angle = np.concatenate([_JAW_ANGLES, [PI / 2], _JAW_ANGLES[::-1]])
    side = np.array([-1.0] * 8 + [0.0] + [1.0] * 8, np.float32)
    add(*f.head.outline(sine(angle).astype(np.float32), cosine(angle).astype(np.float32), side))  # 0-16
    for brow, order in zip(f.brows, (-1, 1), strict=True):  # 17-21 outer to inner, 22-26 inner to outer
        u = _BROW_U[::order]
        add(brow.side * (brow.x + u * brow.width), brow.middle(u))
    n = f.nose
    ridge = np.array([0.0, 1 / 3, 2 / 3, 1.0], np.float32)
    add(0 * ones * ridge, n.root + ridge * (n.tip - n.root), ridge * n.height)  # 27-30
    wings = np.array([-1.0, -0.5, 0.0, 0.5, 1.0], np.float32)
    add(n.width * wings, n.base - 0.035 * wings * wings, WING_RELIEF * n.height)  # 31-35
    for eye, order in zip(f.eyes, (-1, 1), strict=True):  # 36-41 and 42-47: along the upper lid, back along the lower
        u = _EYE_U[::order]
        x = eye.x + eye.side * eye.width * u
        add(x, np.where(np.abs(u) == 1, eye.corner_line(u), eye.upper(u)))
        u = u[2:0:-1]
        add(eye.x + eye.side * eye.width * u, eye.lower(u))
    m = f.mouth
    add(m.width * _OUTER_U, m.curves(_OUTER_U)[0])  # 48-54
    add(m.width * _OUTER_LOW_U, m.curves(_OUTER_LOW_U)[3])  # 55-59
    add(m.width * _INNER_U, m.curves(_INNER_U)[1])  # 60-64
    add(m.width * _INNER_LOW_U, m.curves(_INNER_LOW_U)[2])  # 65-67
    points = [project(pose, x, y, relief) for x, y, relief in groups]
    return np.concatenate(points, axis=1).astype(np.float32)


WING_RELIEF = 0.35  # the wings of the nose stand out by this share of the tip
