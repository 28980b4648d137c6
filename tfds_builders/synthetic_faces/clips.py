"""Clips: a face goes from neutral over onset, apex and offset back to neutral while the head moves on."""

from __future__ import annotations

import dataclasses

import numpy as np

from fer_jax.data.corrupt import occluders
from fer_jax.randomness import Purpose, Stream
from tfds_builders.synthetic_faces.canvas import smooth
from tfds_builders.synthetic_faces.identity import Identity
from tfds_builders.synthetic_faces.pose import Pose
from tfds_builders.synthetic_faces.renderer import Picture, render
from tfds_builders.synthetic_faces.scene import Scene

OCCLUDED_CLIPS = 0.25  # share of the clips through which something passes
MISSING_CLIPS = 0.25  # share of the clips in which the person is out of the picture for some frames


@dataclasses.dataclass(frozen=True)
class Clip:
    """T frames of one person."""

    picture: Picture
    intensity: np.ndarray  # [T] float32, zero where there is no face
    units: np.ndarray  # [T, n]
    pose: np.ndarray  # [T, 3] yaw, pitch, roll in radians
    has_face: np.ndarray  # [T] bool


def envelope(stream: Stream, frames: int) -> np.ndarray:
    """Returns the course of an expression, [T] in 0..1: it starts and ends at 0 and holds 1 in between."""
    onset, apex = stream.uniform(0.0, 0.22), stream.uniform(0.34, 0.46)
    release, end = stream.uniform(0.58, 0.74), stream.uniform(0.84, 1.0)
    t = np.arange(frames) / max(frames - 1, 1)
    rise = (t - onset) / (apex - onset)
    fall = (end - t) / (end - release)
    return smooth(np.minimum(rise, fall).astype(np.float32))


def _repeat(group, frames: int):
    """Returns a dataclass of one example ([1], [3, 1] or [1, n] arrays) as one of T equal ones."""
    values = {}
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        if isinstance(value, np.ndarray):
            axis = 1 if value.ndim == 2 and value.shape[0] in (2, 3) and value.shape[1] == 1 else 0
            value = np.repeat(value, frames, axis=axis)
        values[field.name] = value
    return dataclasses.replace(group, **values)


def draw_clip(apex: Scene, frames: int, bank: str) -> Clip:
    """Draws the clip around one scene, which becomes its apex.

    Args:
      apex: a scene of one picture.
      frames: number of frames T.
      bank: occluders that may pass.
    """
    stream = Stream(apex.seed, Purpose.CLIP, apex.index)
    course = envelope(stream, frames)
    t = (np.arange(frames) / max(frames - 1, 1) - 0.5).astype(np.float32)

    def drift(value: np.ndarray, most: float) -> np.ndarray:
        return (value + t * stream.uniform(-most, most)).astype(np.float32)

    size = apex.size
    pose = Pose(
        yaw=drift(apex.pose.yaw, 0.35),
        pitch=drift(apex.pose.pitch, 0.2),
        roll=drift(apex.pose.roll, 0.2),
        scale=drift(apex.pose.scale, 0.02 * size),
        x=drift(apex.pose.x, 0.08 * size),
        y=drift(apex.pose.y, 0.06 * size),
    )
    who: Identity = _repeat(apex.who, frames)
    scene = dataclasses.replace(
        apex,
        index=np.repeat(apex.index, frames),
        frame=np.arange(frames, dtype=np.int64),
        category=np.repeat(apex.category, frames),
        intensity=apex.intensity * course,
        units=apex.units * course[:, None],
        lopsided=np.repeat(apex.lopsided, frames),
        gaze=np.repeat(apex.gaze, frames, axis=1),
        who=who,
        pose=pose,
        light=_repeat(apex.light, frames),
        camera=_repeat(apex.camera, frames),
    )
    number = np.arange(frames)
    passes, start, length = stream.chance(OCCLUDED_CLIPS), stream.integer(frames), 2 + stream.integer(3)
    occluded = passes & (number >= start) & (number < start + length)
    leaves, start, length = stream.chance(MISSING_CLIPS), stream.integer(frames), 1 + stream.integer(3)
    has_face = ~(leaves & (number >= start) & (number < start + length))
    thing = occluders.sample_occluder(apex.seed, bank, scene.index, pose)
    picture = render(scene, thing, has_object=occluded & has_face, has_face=has_face)
    shown = has_face.astype(np.float32)
    return Clip(
        picture,
        scene.intensity * shown,
        scene.units * shown[:, None],
        np.stack([pose.yaw, pose.pitch, pose.roll], axis=-1) * shown[:, None],
        has_face,
    )
