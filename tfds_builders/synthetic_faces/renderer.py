"""Draws scenes: NumPy, vectorized over the batch, the same bytes on every machine."""

from __future__ import annotations

import dataclasses

import numpy as np

from fer_jax.data.corrupt.occluders import Occluder, cover
from fer_jax.randomness import Purpose, Stream
from tfds_builders.synthetic_faces import features, head
from tfds_builders.synthetic_faces.camera import photograph
from tfds_builders.synthetic_faces.canvas import Patch, column
from tfds_builders.synthetic_faces.geometry import Face, build_face, landmarks
from tfds_builders.synthetic_faces.pose import SCALE, SCALE_SPREAD, on_sheet, pixel_grid, project
from tfds_builders.synthetic_faces.scene import Scene


@dataclasses.dataclass(frozen=True)
class Picture:
    """B drawn pictures and the geometry they show."""

    image: np.ndarray  # [B, H, W, 3] uint8
    landmarks: np.ndarray  # [B, 68, 2] float32, pixels
    occlusion: np.ndarray  # [B, H, W] bool


def background(scene: Scene) -> np.ndarray:
    """Returns what the camera sees without a person, [3, B, H, W] in 0..1 before exposure."""
    return head.draw_background(Stream(scene.seed, Purpose.BACKGROUND, scene.index), scene.size)


def paint(scene: Scene, face: Face) -> np.ndarray:
    """Returns the painted pictures before camera and occluders, [3, B, H, W] float32 in 0..1."""
    pose, who, units, size = scene.pose, scene.who, scene.units, scene.size
    qx, qy = pixel_grid(pose, size)
    x, y = on_sheet(pose, qx, qy)
    picture = Patch(background(scene), x, y, qx, qy, column(pose.scale))
    f = face.expanded(2)

    head.draw_behind(picture, pose, f, who)
    covered = head.draw_skin(picture, f, who)

    def center(px: np.ndarray, py: np.ndarray) -> np.ndarray:
        return project(pose, px[:, None], py[:, None])[:, 0]

    def side(units_: float) -> int:
        """Pixels that hold this many face units at the largest scale."""
        return int(units_ * SCALE * (1 + SCALE_SPREAD) * size + 0.999)

    zero = np.zeros_like(face.mouth.y)
    lower = picture.window(center(zero, face.mouth.y + np.float32(0.12)), side(1.9), side(2.3))
    head.draw_beard(lower, f, who)
    features.draw_folds(lower, f, who, units)
    picture.paste(lower)
    forehead = picture.window(center(zero, face.brows[0].center - np.float32(0.16)), side(1.1), side(1.7))
    features.draw_forehead(forehead, f, who, units)
    picture.paste(forehead)
    nose = picture.window(center(zero, np.float32(0.5) * face.nose.base), side(1.2), side(1.2))
    features.draw_nose(nose, pose, f, who, column(scene.light.side))
    picture.paste(nose)
    for eye, f_eye, f_brow in zip(face.eyes, f.eyes, f.brows, strict=True):
        window = picture.window(center(eye.x * np.float32(1.08), eye.y - np.float32(0.16)), side(1.2), side(1.15))
        features.draw_eye(window, f_eye, f_brow, who, units, column(scene.gaze))
        picture.paste(window)
    mouth = picture.window(center(zero, face.mouth.y + np.float32(0.05)), side(1.2), side(1.4))
    features.draw_mouth(mouth, f.mouth, who, units)
    picture.paste(mouth)

    head.apply_light(picture, covered, scene.light)
    head.draw_hair(picture, f, who)
    head.draw_glasses(picture, f, who)
    return expose(picture.rgb, scene)


def expose(rgb: np.ndarray, scene: Scene) -> np.ndarray:
    """Applies exposure, contrast and color temperature."""
    light = scene.light
    gain = np.stack([light.exposure * (1 + light.warmth), light.exposure, light.exposure * (1 - light.warmth)])
    rgb = (rgb * column(gain) - np.float32(0.5)) * column(light.contrast) + np.float32(0.5)
    return np.minimum(np.maximum(rgb, np.float32(0)), np.float32(1))


def render(
    scene: Scene,
    thing: Occluder | None = None,
    has_object: np.ndarray | None = None,
    has_face: np.ndarray | None = None,
) -> Picture:
    """Draws a scene.

    Args:
      scene: B pictures.
      thing: what stands in front of the faces.
      has_object: [B] which pictures it stands in; all by default.
      has_face: [B] which pictures have a face; the others show the background and have landmarks (0, 0).
    """
    face = build_face(scene.who, scene.units, scene.lopsided)
    rgb = paint(scene, face)
    points = landmarks(face, scene.pose)
    if has_face is not None:
        rgb = np.where(column(has_face), rgb, expose(background(scene), scene))
        points = np.where(column(has_face), points, np.float32(0))
    occlusion = np.zeros(rgb.shape[1:], bool)
    if thing is not None:
        covered = rgb.copy()
        occlusion = cover(covered, thing)
        if has_object is not None:
            occlusion &= column(has_object)
        rgb = np.where(occlusion, covered, rgb)
    image = photograph(rgb, scene.camera, scene.seed, scene.index, scene.frame)
    return Picture(image, points, occlusion)
