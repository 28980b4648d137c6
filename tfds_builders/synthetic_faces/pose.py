"""Where the head is: scaled orthographic projection of a curved face, and its exact inverse.

The face is a sheet bent like a paraboloid, z = -(BEND_X x^2 + BEND_Y (y - CENTRE)^2), in front of the
neck's axis at distance PIVOT. Because the sheet is quadratic, the point of it that a pixel shows has a
closed form (one square root): pixels are mapped back to face coordinates and every feature is drawn there.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fer_jax.randomness import Stream, cosine, sine

CENTRE = 0.40  # face coordinate (y) of the middle of the picture
BEND_X = 0.40
BEND_Y = 0.10
PIVOT = 0.60
SCALE = 0.35  # pixels per face unit, as a share of the picture's side
SCALE_SPREAD = 0.09


@dataclasses.dataclass(frozen=True)
class Pose:
    """B poses.

    Angles in radians: yaw > 0 turns to the picture's right, pitch > 0 looks up, roll > 0 is clockwise.
    `scale` is in pixels per face unit; x, y is the pixel of the head's axis.
    """

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    scale: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images of the face's three axes: rows x and y of the rotation, each [B, 3] float32."""
        sy, cy, sp, cp = sine(self.yaw), cosine(self.yaw), sine(self.pitch), cosine(self.pitch)
        sr, cr = sine(self.roll), cosine(self.roll)
        across = (cy, 0 * cy, sy)
        down = (sy * sp, cp, -cy * sp)
        row_x = np.stack([cr * a - sr * d for a, d in zip(across, down, strict=True)], axis=-1)
        row_y = np.stack([sr * a + cr * d for a, d in zip(across, down, strict=True)], axis=-1)
        return row_x.astype(np.float32), row_y.astype(np.float32)


def sample_pose(stream: Stream, size: int) -> Pose:
    """Draws poses around a centered frontal face."""
    return Pose(
        yaw=stream.uniform(-0.40, 0.40).astype(np.float32),
        pitch=stream.uniform(-0.16, 0.16).astype(np.float32),
        roll=stream.uniform(-0.21, 0.21).astype(np.float32),
        scale=(size * SCALE * (1 + stream.uniform(-SCALE_SPREAD, SCALE_SPREAD))).astype(np.float32),
        x=((size - 1) / 2 + size * stream.uniform(-0.035, 0.035)).astype(np.float32),
        y=((size - 1) / 2 + size * stream.uniform(-0.035, 0.035)).astype(np.float32),
    )


def depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns how far the sheet lies behind its foremost point (<= 0)."""
    down = y - CENTRE
    return -(BEND_X * x * x + BEND_Y * down * down)


def project(pose: Pose, x: np.ndarray, y: np.ndarray, relief: np.ndarray | None = None) -> np.ndarray:
    """Projects face coordinates [B, N] to pixels [B, N, 2].

    `relief` puts a point in front of the plane through the sheet's foremost point, not onto the sheet: the
    nose.
    """
    row_x, row_y = pose.axes()
    z = PIVOT + (depth(x, y) if relief is None else relief)
    down = y - CENTRE
    out = [
        center[:, None] + pose.scale[:, None] * (row[:, :1] * x + row[:, 1:2] * down + row[:, 2:] * z)
        for center, row in ((pose.x, row_x), (pose.y, row_y))
    ]
    return np.stack(out, axis=-1)


def pixel_grid(pose: Pose, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns each pixel's offset from the head's axis in face units, two arrays [B, size, size] float32."""
    steps = np.arange(size, dtype=np.float32)
    shape = (len(pose.scale), size, size)
    scale = pose.scale[:, None, None]
    qx = (steps[None, None, :] - pose.x[:, None, None]) / scale
    qy = (steps[None, :, None] - pose.y[:, None, None]) / scale
    return np.broadcast_to(qx, shape), np.broadcast_to(qy, shape)


def on_plane(
    pose: Pose,
    qx: np.ndarray,
    qy: np.ndarray,
    height: float | np.ndarray,
    slope: float | np.ndarray = 0.0,
    y0: float | np.ndarray = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns face coordinates of pixels on the plane z = height + slope (y - y0) before the sheet's front.

    `slope` and `y0` are scalars or [B, 1, 1].
    """
    row_x, row_y = (row[:, :, None, None] for row in pose.axes())
    base = PIVOT + height + slope * (CENTRE - y0)
    ax, ay = row_x[:, 0], row_y[:, 0]
    bx, by = row_x[:, 1] + slope * row_x[:, 2], row_y[:, 1] + slope * row_y[:, 2]
    px, py = qx - base * row_x[:, 2], qy - base * row_y[:, 2]
    determinant = ax * by - ay * bx
    x = px * (by / determinant) - py * (bx / determinant)
    y = py * (ax / determinant) - px * (ay / determinant)
    return x, y + CENTRE


def on_sheet(pose: Pose, qx: np.ndarray, qy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns face coordinates of pixels on the bent sheet; far outside the face where the ray misses it."""
    px, py = on_plane(pose, qx, qy, 0.0)
    py = py - CENTRE
    row_x, row_y = (row[:, :, None, None] for row in pose.axes())
    ax, ay, bx, by = row_x[:, 0], row_y[:, 0], row_x[:, 1], row_y[:, 1]
    determinant = ax * by - ay * bx
    dx = (row_x[:, 2] * by - row_y[:, 2] * bx) / determinant  # where one unit of depth shifts the sheet
    dy = (row_y[:, 2] * ax - row_x[:, 2] * ay) / determinant
    # z = -BEND_X (px - z dx)^2 - BEND_Y (py - z dy)^2 is a quadratic in z; the stable form of its near root.
    a = BEND_X * dx * dx + BEND_Y * dy * dy
    b = 1 - 2 * (px * (BEND_X * dx) + py * (BEND_Y * dy))
    c = BEND_X * px * px + BEND_Y * py * py
    inside = b * b - 4 * a * c
    hit = (inside > 0) & (b > 0)
    z = -2 * c / (b + np.sqrt(np.maximum(inside, 0)) + np.float32(1e-6) + np.where(hit, 0, 1e3).astype(np.float32))
    x = np.where(hit, px - z * dx, 9).astype(np.float32)
    return x, (py - z * dy + CENTRE).astype(np.float32)
