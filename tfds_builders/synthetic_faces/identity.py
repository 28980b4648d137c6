"""Who a face belongs to: everything about a person that an expression does not change."""

from __future__ import annotations

import dataclasses

import numpy as np

from fer_jax.randomness import Purpose, Stream
from tfds_builders.synthetic_faces.expressions import AU_IDS

SKIN = np.array(
    [
        (0.98, 0.86, 0.77),
        (0.95, 0.78, 0.65),
        (0.87, 0.68, 0.53),
        (0.76, 0.56, 0.41),
        (0.60, 0.42, 0.30),
        (0.44, 0.30, 0.22),
    ]
)
HAIR = np.array(
    [
        (0.10, 0.08, 0.08),
        (0.24, 0.15, 0.10),
        (0.42, 0.26, 0.14),
        (0.62, 0.30, 0.14),
        (0.85, 0.68, 0.38),
        (0.72, 0.71, 0.70),
    ]
)
IRIS = np.array([(0.26, 0.15, 0.08), (0.38, 0.26, 0.12), (0.30, 0.42, 0.24), (0.26, 0.42, 0.60), (0.35, 0.40, 0.45)])

BALD, CROPPED, PARTED, FRINGE, LONG, CURLY, BUN = range(7)
NUM_HAIR_STYLES = 7


@dataclasses.dataclass(frozen=True)
class Identity:
    """B people. Lengths are in face units: half the width of an average face is 1."""

    face_width: np.ndarray
    face_length: np.ndarray
    skull: np.ndarray
    jaw: np.ndarray  # > 0 square, < 0 pointed
    eye_spacing: np.ndarray
    eye_width: np.ndarray
    eye_opening: np.ndarray
    eye_tilt: np.ndarray
    brow_height: np.ndarray
    brow_arch: np.ndarray
    brow_tilt: np.ndarray
    brow_thickness: np.ndarray
    nose_length: np.ndarray
    nose_width: np.ndarray
    mouth_height: np.ndarray
    mouth_width: np.ndarray
    upper_lip: np.ndarray
    lower_lip: np.ndarray
    resting_corner: np.ndarray
    age: np.ndarray  # 0 young .. 1 old
    hair_style: np.ndarray  # [B] int64
    hair_line: np.ndarray
    hair_part: np.ndarray
    glasses: np.ndarray  # 0 none, 1 round, 2 square
    beard: np.ndarray  # 0 none .. 1 full
    moustache: np.ndarray
    skin: np.ndarray  # [3, B]
    hair: np.ndarray  # [3, B]
    iris: np.ndarray  # [3, B]
    lips: np.ndarray  # [3, B]
    frame: np.ndarray  # [3, B] color of the glasses
    clothes: np.ndarray  # [3, B]
    gain: np.ndarray  # [B, n] how far this person's action units move the face


def _mix(palette: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Returns [3, B]: the palette read at a position in 0..1, between its entries."""
    scaled = position * (len(palette) - 1)
    low = np.minimum(scaled.astype(np.int64), len(palette) - 2)
    part = (scaled - low)[:, None]
    return (palette[low] + part * (palette[low + 1] - palette[low])).T


def sample_identity(seed: int, subjects: np.ndarray) -> Identity:
    """Returns the people with these subject ids; the same id is the same person in every configuration."""
    s = Stream(seed, Purpose.SUBJECT, subjects, capacity=96)
    age = s.uniform()
    skin = _mix(SKIN, s.uniform()) * s.uniform(0.92, 1.05)
    gray = np.where(age > 0.72, 1.0, 0.0)
    hair = _mix(HAIR, np.maximum(s.uniform(0.0, 0.92), gray * s.uniform(0.8, 1.0)))
    blush = s.uniform(0.15, 0.75)
    lips = skin * (1 - 0.22 * blush) * np.array([1.0, 0.70, 0.70])[:, None] + np.array([0.06, 0.0, 0.02])[:, None]
    bearded = s.chance(0.24)
    style = s.integer(NUM_HAIR_STYLES)
    values = dict(
        age=age,
        skin=skin,
        hair=hair,
        lips=lips,
        iris=_mix(IRIS, s.uniform()),
        frame=np.stack([s.uniform(0.03, 0.6), s.uniform(0.03, 0.35), s.uniform(0.03, 0.45)]),
        clothes=np.stack([s.uniform(0.1, 0.9), s.uniform(0.1, 0.9), s.uniform(0.1, 0.9)]),
        face_width=s.uniform(0.90, 1.06),
        face_length=s.uniform(0.94, 1.08),
        skull=s.uniform(1.14, 1.32),
        jaw=s.uniform(-0.28, 0.55),
        eye_spacing=s.uniform(0.43, 0.49),
        eye_width=s.uniform(0.235, 0.285),
        eye_opening=s.uniform(0.84, 1.16),
        eye_tilt=s.uniform(-0.12, 0.05),
        brow_height=s.uniform(0.30, 0.37),
        brow_arch=s.uniform(0.02, 0.08),
        brow_tilt=s.uniform(-0.03, 0.03),
        brow_thickness=s.uniform(0.036, 0.066),
        nose_length=s.uniform(0.47, 0.58),
        nose_width=s.uniform(0.16, 0.24),
        mouth_height=s.uniform(0.83, 0.92),
        mouth_width=s.uniform(0.34, 0.41),
        upper_lip=s.uniform(0.05, 0.09),
        lower_lip=s.uniform(0.07, 0.12),
        resting_corner=s.uniform(-0.035, 0.02),
        hair_style=style,
        hair_line=s.uniform(-0.82, -0.64),
        hair_part=s.uniform(-0.6, 0.6),
        glasses=np.where(s.chance(0.16), 1.0 + s.integer(2), 0.0),
        beard=np.where(bearded, s.uniform(0.25, 0.9), 0.0),
        moustache=np.where(bearded, s.uniform(0.0, 0.9), 0.0),
        gain=s.uniform(0.85, 1.15, size=len(AU_IDS)),
    )
    return Identity(**{n: v if v.dtype == np.int64 else v.astype(np.float32) for n, v in values.items()})
