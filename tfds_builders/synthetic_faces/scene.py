"""What is to be drawn: every parameter of B pictures, from a seed and their indices."""

from __future__ import annotations

import dataclasses

import numpy as np

from fer_jax.randomness import Purpose, Stream
from tfds_builders.synthetic_faces.camera import Camera, sample_camera
from tfds_builders.synthetic_faces.expressions import sample_action_units
from tfds_builders.synthetic_faces.head import Light, sample_light
from tfds_builders.synthetic_faces.identity import Identity, sample_identity
from tfds_builders.synthetic_faces.pose import Pose, sample_pose

WEAKEST = 0.50  # intensities are uniform between this and 1
MEAN_INTENSITY = 0.5 * (WEAKEST + 1)


@dataclasses.dataclass(frozen=True)
class Scene:
    """B pictures before they are drawn; `index` and `frame` key the remaining random streams."""

    seed: int
    size: int
    index: np.ndarray
    frame: np.ndarray
    category: np.ndarray  # row of `RECIPES`
    intensity: np.ndarray
    units: np.ndarray  # [B, n] action units
    lopsided: np.ndarray
    gaze: np.ndarray  # [2, B]
    who: Identity
    pose: Pose
    light: Light
    camera: Camera


def sample_scene(seed: int, size: int, index: np.ndarray, subject: np.ndarray, category: np.ndarray) -> Scene:
    """Draws still pictures.

    Args:
      seed: of the whole data set.
      size: side of the picture in pixels.
      index: [B] unique number of each picture over all splits; its randomness depends on it alone.
      subject: [B] person.
      category: [B] row of `RECIPES`.
    """
    who = sample_identity(seed, subject)
    stream = Stream(seed, Purpose.EXPRESSION, index)
    intensity = np.where(category == 0, 0.0, stream.uniform(WEAKEST, 1.0))
    units = sample_action_units(stream, category, intensity, who.gain)
    lopsided = stream.uniform(-0.15, 0.15).astype(np.float32)
    gaze = np.stack([stream.uniform(-0.28, 0.28), stream.uniform(-0.08, 0.08)]).astype(np.float32)
    view = Stream(seed, Purpose.VIEW, index)
    return Scene(
        seed=seed,
        size=size,
        index=np.asarray(index, np.int64),
        frame=np.zeros(len(index), np.int64),
        category=np.asarray(category, np.int64),
        intensity=intensity.astype(np.float32),
        units=units,
        lopsided=lopsided,
        gaze=gaze,
        who=who,
        pose=sample_pose(view, size),
        light=sample_light(view),
        camera=sample_camera(Stream(seed, Purpose.CAMERA, index)),
    )
