"""Everything around the features: background, clothes, neck, ears, skin, light, beard, hair, glasses."""

from __future__ import annotations

import dataclasses

import numpy as np

from fer_jax.randomness import Stream
from tfds_builders.synthetic_faces import identity
from tfds_builders.synthetic_faces.canvas import Patch, bump, column, ramp, smooth
from tfds_builders.synthetic_faces.geometry import Face
from tfds_builders.synthetic_faces.identity import Identity
from tfds_builders.synthetic_faces.pose import Pose, on_plane


@dataclasses.dataclass(frozen=True)
class Light:
    """A lamp from a side and a height, the rest of the room, and the camera's exposure."""

    side: np.ndarray  # > 0 from the picture's right
    above: np.ndarray
    rim: np.ndarray
    exposure: np.ndarray
    warmth: np.ndarray
    contrast: np.ndarray


def sample_light(stream: Stream) -> Light:
    """Draws lights; some are harsh."""
    harsh = np.where(stream.chance(0.25), 1.6, 1.0)
    values = dict(
        side=stream.uniform(-0.22, 0.22) * harsh,
        above=stream.uniform(-0.10, 0.22),
        rim=stream.uniform(0.05, 0.30),
        exposure=stream.uniform(0.68, 1.18),
        warmth=stream.uniform(-0.10, 0.10),
        contrast=stream.uniform(0.75, 1.15),
    )
    return Light(**{name: value.astype(np.float32) for name, value in values.items()})


CELLS = 4  # the background interpolates a grid of colors
SPOTS = 6  # dark and bright discs, so that no count of dark or bright pixels tells an open mouth


def draw_background(stream: Stream, size: int) -> np.ndarray:
    """Returns [3, B, size, size]: soft blotches of color, stripes in half of the pictures, and discs."""
    level, color = stream.uniform(0.1, 0.9), stream.uniform(0.1, 0.7)
    base = [level + color * (stream.uniform(0.05, 0.95) - level) for _ in range(3)]
    spread = stream.uniform(0.05, 0.4)
    grid = np.stack([b[:, None] + spread[:, None] * (stream.uniform(size=CELLS * CELLS) - 0.5) for b in base]).astype(
        np.float32
    )
    grid = grid.reshape(3, -1, CELLS, CELLS)
    steps = np.arange(size, dtype=np.float32) * np.float32((CELLS - 1) / (size - 1))
    hats = [np.maximum(1 - np.abs(steps - k), 0) for k in range(CELLS)]
    rows = np.zeros((3, grid.shape[1], CELLS, size), np.float32)
    for k, hat in enumerate(hats):
        rows += grid[..., k, None] * hat
    picture = np.zeros((3, grid.shape[1], size, size), np.float32)
    for k, hat in enumerate(hats):
        picture += rows[:, :, k, None, :] * hat[:, None]
    dx, dy, period = (
        v.astype(np.float32) for v in (stream.uniform(-1, 1), stream.uniform(-1, 1), stream.uniform(3, 14))
    )
    strength = np.where(stream.chance(0.5), stream.uniform(0.0, 0.4), 0.0).astype(np.float32)
    pixels = np.arange(size, dtype=np.float32) * np.float32(64 / size)
    phase = (column(dx) * pixels[None, None, :] + column(dy) * pixels[None, :, None]) / column(period)
    wave = np.abs(phase - np.floor(phase) - 0.5) * 2
    picture *= 1 - column(strength) * wave
    for _ in range(SPOTS):
        x, y, radius = stream.uniform(0, size), stream.uniform(0, size), size * stream.uniform(0.03, 0.13)
        level = np.where(stream.chance(0.5), stream.uniform(0.02, 0.25), stream.uniform(0.75, 1.0))
        tint = np.stack([stream.uniform(-0.12, 0.12) for _ in range(3)])
        x, y, radius, level = (column(v.astype(np.float32)) for v in (x, y, radius, level))
        away = np.sqrt(
            (np.arange(size, dtype=np.float32) - x) ** 2 + (np.arange(size, dtype=np.float32)[:, None] - y) ** 2
        )
        inside = ramp(radius - away)
        for plane, t in zip(picture, tint.astype(np.float32), strict=True):
            plane += inside * (level + column(t) - plane)
    return np.minimum(np.maximum(picture, 0), 1)


def draw_behind(patch: Patch, pose: Pose, face: Face, who: Identity) -> None:
    """Draws what lies behind the face's outline: long hair, neck, shoulders and ears."""
    head = face.head
    style = column(who.hair_style)
    x, y = on_plane(pose, patch.qx, patch.qy, -0.75)
    long_ = patch.edge((1 - np.sqrt((x / 1.22) ** 2 + ((y - 0.25) / (0.35 - head.top)) ** 2)) * 1.2)
    long_ = np.maximum(long_, patch.edge(1.16 - np.abs(x)) * (y > 0.2)) * (style == identity.LONG)
    curls = 0.05 * np.abs(np.floor(x * 5 + 0.5) - x * 5) + 0.05 * np.abs(np.floor(y * 5 + 0.5) - y * 5)
    curly = patch.edge((1 - np.sqrt((x / 1.32) ** 2 + ((y + 0.35) / 1.28) ** 2) + curls) * 1.2)
    curly = curly * (style == identity.CURLY)
    bun = patch.edge(0.36 - np.sqrt(x * x + (y - head.top + 0.02) ** 2)) * (style == identity.BUN)
    strand = 0.86 + 0.16 * np.abs(x * 7 - np.floor(x * 7 + 0.5))
    back = np.maximum(np.maximum(long_, curly), bun)
    patch.paint(back, column(who.hair) * (0.8 * strand))
    x, y = on_plane(pose, patch.qx, patch.qy, -0.60)
    neck = patch.edge(0.56 + 0.1 * smooth(y - 1.2) - np.abs(x)) * (y > 0.3)
    shade = 0.62 + 0.2 * smooth((y - head.chin) * 1.5)
    patch.paint(neck, column(who.skin) * shade)
    body = patch.edge(y - 1.62 - 0.28 * x * x - 0.25 * bump((x / 0.55) ** 2))
    patch.paint(body, who.clothes)
    x, y = on_plane(pose, patch.qx, patch.qy, -0.42)
    for side in (-1.0, 1.0):
        ear = np.sqrt(((x * side - head.width * 0.99) / 0.15) ** 2 + ((y - 0.20) / 0.27) ** 2)
        patch.paint(patch.edge((1 - ear) * 0.18), who.skin * np.float32(0.88))
        patch.shade(0.35 * bump((ear / 0.75) ** 2), (0.8, 1.0, 1.0))


def draw_skin(patch: Patch, face: Face, who: Identity) -> np.ndarray:
    """Fills the outline with skin; returns its coverage."""
    radius = face.head.radius(patch.x, patch.y)
    covered = patch.edge((1 - radius) * 1.1)
    patch.paint(covered, who.skin)
    return covered


def draw_beard(patch: Patch, face: Face, who: Identity) -> None:
    """Darkens jaw and upper lip with hair."""
    x, y = patch.x, patch.y
    m, head = face.mouth, face.head
    inside = ramp((1.02 - head.radius(x, y)) * patch.scale)
    edge = m.y - 0.34 + 0.62 * np.maximum(np.float32(1) - (x / (m.width + 0.36)) ** 2, np.float32(0))
    jaw = smooth((y - edge) * 7) * inside
    grain = 0.94 + 0.12 * np.abs(x * 13 - np.floor(x * 13 + 0.5))
    patch.paint(column(who.beard) * jaw, column(who.hair) * grain)
    lip = face.nose.base + 0.04
    width = m.width + 0.10
    up = m.curves(np.minimum(np.maximum(x / m.width, np.float32(-1)), np.float32(1)))[0]
    tip = (x / width) ** 2
    moustache = smooth((y - lip - 0.12 * tip) * 18) * smooth((up + 0.05 + 0.05 * tip - y) * 18)
    moustache = moustache * ramp((width - np.abs(x)) * patch.scale)
    patch.paint(column(who.moustache) * moustache, column(who.hair) * grain)


def apply_light(patch: Patch, covered: np.ndarray, light: Light) -> None:
    """Shades the face as a rounded body under the lamp."""
    x, y = patch.x, patch.y - np.float32(0.3)
    lamp = column(light.side) * x - column(light.above) * y - column(light.rim) * (x * x + 0.35 * y * y)
    lamp = np.minimum(np.maximum(lamp + np.float32(0.06), np.float32(-0.62)), np.float32(0.35))
    patch.shade(-lamp * covered)


def draw_hair(patch: Patch, face: Face, who: Identity) -> None:
    """Draws the hair in front of the skull."""
    x, y = patch.x, patch.y
    head = face.head
    style = column(who.hair_style)
    line = column(who.hair_line)
    part = column(who.hair_part)
    volume = np.where((style == identity.CROPPED) | (style == identity.BUN), 1.03, 1.09).astype(np.float32)
    volume = np.where(style == identity.CURLY, np.float32(1.16), volume)
    shell = ramp((volume - head.radius(x, y)) * patch.scale * 1.1)
    x2 = x * x
    sides = np.where(style == identity.LONG, 1.5, np.where(style == identity.CURLY, 1.1, 0.62)).astype(np.float32)
    edge = line + sides * x2 * x2 * 0.75 + 0.05 * x2
    parted = line - 0.16 + 0.34 * np.abs(x - part) + 0.30 * x2 * x2
    fringe = line + 0.16 + 0.04 * np.abs(x * 5 - np.floor(x * 5 + 0.5)) + 0.55 * x2 * x2
    edge = np.where(style == identity.PARTED, parted, edge)
    edge = np.where((style == identity.LONG), np.maximum(parted - 0.05, edge - 0.1), edge)
    edge = np.where(style == identity.FRINGE, fringe, edge)
    edge = np.minimum(edge, np.float32(0.62))
    cover = shell * patch.edge(edge - y) * (style != identity.BALD)
    lock = 9 * x + 2.5 * x * y
    lines = np.abs(lock - np.floor(lock + 0.5))
    gloss = bump((x - part) ** 2 * 2 + ((y + 0.95) / 0.35) ** 2)
    patch.paint(cover, column(who.hair) * (0.84 + 0.20 * lines + 0.28 * gloss))


def draw_glasses(patch: Patch, face: Face, who: Identity) -> None:
    """Draws frames around the eyes, for those who wear them."""
    x, y = patch.x, patch.y
    square = column(who.glasses) == 2
    worn = column(who.glasses) > 0
    total = np.zeros_like(x)
    for eye in face.eyes:
        dx, dy = np.abs(x - eye.x) / 0.345, np.abs(y - 0.03) / 0.275
        round_ = np.sqrt(dx * dx + dy * dy)
        box = np.sqrt(np.sqrt(dx * dx * dx * dx + dy * dy * dy * dy))
        off = np.abs(np.where(square, box, round_) - 1) * 0.30
        total = np.maximum(total, patch.edge(0.020 - off))
    bridge = patch.edge(0.024 - np.abs(y + 0.03)) * (np.abs(x) < 0.12)
    outer = face.eyes[1].x + 0.345
    temple = patch.edge(0.024 - np.abs(y + 0.05)) * (np.abs(x) > outer) * (np.abs(x) < face.head.width)
    total = np.maximum(np.maximum(total, bridge), temple)
    patch.paint(0.9 * total * worn, who.frame)
