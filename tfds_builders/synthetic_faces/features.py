"""Eyes, brows, nose, mouth and the folds around them."""

from __future__ import annotations

import numpy as np

from tfds_builders.synthetic_faces.canvas import Patch, bump, column, ramp, smooth
from tfds_builders.synthetic_faces.expressions import AU_COLUMN
from tfds_builders.synthetic_faces.geometry import WING_RELIEF, Brow, Eye, Face, Mouth
from tfds_builders.synthetic_faces.identity import Identity
from tfds_builders.synthetic_faces.pose import Pose, on_plane

WRINKLE_TINT = (0.75, 1.0, 1.05)


def unit(units: np.ndarray, number: int) -> np.ndarray:
    """Returns the intensity of an action unit, [B, 1, 1]."""
    return column(units[:, AU_COLUMN[number]])


def stroke(patch: Patch, off: np.ndarray, along: np.ndarray, half: float) -> np.ndarray:
    """Coverage of a soft line: `off` its distance across, `along` from -1 to 1 from end to end (fading)."""
    across = np.minimum(np.abs(off) * (patch.scale / np.maximum(half * patch.scale, np.float32(0.8))), np.float32(1))
    return (1 - across * across) * np.maximum(np.float32(1) - along * along, np.float32(0))


def draw_eye(patch: Patch, eye: Eye, brow: Brow, who: Identity, units: np.ndarray, gaze: np.ndarray) -> None:
    """Draws lids, eyeball, lashes and brow of one side. `gaze` is [2, B, 1, 1], in eye widths."""
    x, y = patch.x, patch.y
    u = eye.local(x)
    upper, lower = eye.upper(u), eye.lower(u)
    socket = bump((u * 0.62) ** 2 + ((y - eye.y + 0.05) / 0.24) ** 2)
    patch.shade(0.16 * socket, (0.85, 1.0, 1.0))
    # The crease of the upper lid, the pouch under the eye (deeper when the cheek rises), crow's feet.
    lift = unit(units, 5)
    crease = stroke(patch, y - (upper - 0.055 - 0.012 * lift + 0.03 * u * u), u * 0.95, 0.03)
    patch.shade((0.20 + 0.10 * lift) * crease, WRINKLE_TINT)
    squeeze = np.maximum(unit(units, 6), 0.7 * unit(units, 7))
    age = column(who.age)
    pouch = stroke(patch, y - (lower + 0.065 + 0.03 * unit(units, 6)), u * 1.05, 0.045)
    patch.shade((0.06 + 0.14 * age + 0.34 * squeeze) * pouch, WRINKLE_TINT)
    feet = (x * eye.side - np.abs(eye.x) - eye.width) / 0.16 - 0.55
    rise = y - eye.y - 0.02
    for slope in (-0.55, 0.0, 0.5):
        line = stroke(patch, rise - slope * (feet + 0.55) * 0.16, feet * 1.6, 0.022)
        patch.shade((0.10 * age + 0.40 * unit(units, 6)) * line, WRINKLE_TINT)
    # The eyeball shows where the pixel is below the upper and above the lower lid.
    inside = (u * u < 1).astype(np.float32)
    open_ = patch.edge(y - upper) * patch.edge(lower - y) * inside
    shadow = bump((y - upper) * (1 / 0.075)) * (y > upper)
    patch.paint(open_, (0.94, 0.93, 0.91))
    patch.shade(0.35 * open_ * shadow)
    ix = eye.x + gaze[0] * eye.width
    iy = eye.corner_line(0 * eye.x) - 0.018 + gaze[1] * eye.width
    radius = np.sqrt((x - ix) ** 2 + (y - iy) ** 2)
    disc = 0.47 * eye.width
    patch.paint(open_ * patch.edge(disc - radius), who.iris * np.float32(0.9))
    patch.shade(0.5 * open_ * patch.edge(disc - radius) * smooth((radius / disc - 0.6) * 2.5))
    patch.paint(open_ * patch.edge(0.48 * disc - radius), (0.03, 0.03, 0.04))
    glint = np.sqrt((x - ix + 0.035) ** 2 + (y - iy + 0.04) ** 2)
    patch.paint(open_ * patch.edge(0.032 - glint), (1.0, 1.0, 1.0))
    # Lash lines.
    lash = patch.edge(0.022 - np.abs(y - upper + 0.008)) * (np.abs(u) < 1.04)
    patch.paint(0.85 * lash, (0.10, 0.06, 0.05))
    rim = stroke(patch, y - lower - 0.004, u, 0.018)
    patch.shade(0.35 * rim, WRINKLE_TINT)
    # The brow: thick inside, thin outside, with hairs along it.
    v = brow.local(x)
    thick = brow.thickness * (1.15 - 0.40 * v - 0.25 * v * v)
    off = np.abs(y - brow.middle(v))
    hair = patch.edge(thick - off) * ramp((1.02 - np.abs(v)) * brow.width * patch.scale)
    patch.paint(0.88 * hair, who.hair * np.float32(0.72))


def draw_forehead(patch: Patch, face: Face, who: Identity, units: np.ndarray) -> None:
    """Draws forehead lines (units 1, 2) and the frown between the brows (4, 9)."""
    x, y = patch.x, patch.y
    inner, outer, frown, nose = (unit(units, n) for n in (1, 2, 4, 9))
    age = column(who.age)
    brow = face.brows[0].center
    side = np.minimum(x * x, np.float32(1))
    reach = 0.30 + 0.42 * outer
    depth = 0.10 * age + 0.42 * np.maximum(inner * 0.8, outer)
    bent = 0.12 * (inner - outer) * (1 - 3 * side)
    for level in (0.17, 0.29, 0.41):
        line = stroke(patch, y - (brow - level - bent * 0.5 + 0.05 * side), x / (reach + 0.1), 0.03)
        patch.shade(depth * line, WRINKLE_TINT)
    middle = brow + 0.10
    for side in (-1.0, 1.0):
        line = stroke(patch, x - side * (0.085 + 0.05 * (y - middle)), (y - middle) / 0.17, 0.028)
        patch.shade((0.05 * age + 0.55 * frown + 0.25 * nose) * line, WRINKLE_TINT)
    patch.shade(0.22 * frown * bump((x / 0.20) ** 2 + ((y - middle) / 0.20) ** 2), WRINKLE_TINT)


def draw_nose(patch: Patch, pose: Pose, face: Face, who: Identity, light: np.ndarray) -> None:
    """Draws ridge, tip, wings and nostrils; they stand out of the sheet and lie on planes of their own."""
    n = face.nose
    slope = n.height / (n.tip - n.root)
    x, y = on_plane(pose, patch.qx, patch.qy, 0.0, slope, n.root)
    t = (y - n.root) / (n.tip - n.root)
    along = smooth((t + 0.35) * 1.6) * smooth((1.25 - t) * 5)
    width = 0.075 + 0.045 * smooth(t)
    dark_side = np.where(light > 0, -1.0, 1.0).astype(np.float32)
    patch.shade(-0.16 * bump((x / width) ** 2) * along)
    patch.shade(0.30 * bump(((x - dark_side * (width + 0.05)) / 0.09) ** 2) * along, (0.8, 1.0, 1.0))
    patch.shade(0.12 * bump(((x + dark_side * (width + 0.05)) / 0.08) ** 2) * along, (0.8, 1.0, 1.0))
    patch.shade(-0.20 * bump((x / 0.085) ** 2 + ((y - n.tip) / 0.085) ** 2))
    for level in (0.12, 0.30):  # wrinkles across the root when the nose is wrinkled
        line = stroke(patch, t - level - 1.2 * x * x, x / 0.17, 0.05)
        patch.shade(0.55 * n.wrinkle * line, WRINKLE_TINT)
    for side in (-1.0, 1.0):
        line = stroke(patch, (x * side - 0.11) - 0.30 * (t - 0.35), (t - 0.35) / 0.30, 0.03)
        patch.shade(0.50 * n.wrinkle * line, WRINKLE_TINT)
    x, y = on_plane(pose, patch.qx, patch.qy, WING_RELIEF * n.height)
    base = n.base - 0.035 * (x / n.width) ** 2
    under = stroke(patch, y - base - 0.012, x / (n.width * 1.02), 0.035)
    patch.shade(0.50 * under, WRINKLE_TINT)
    patch.shade(0.16 * bump((x / (n.width * 0.9)) ** 2 + ((y - n.base - 0.07) / 0.09) ** 2), (0.8, 1.0, 1.0))
    for side in (-1.0, 1.0):
        nostril = np.sqrt(((x - side * 0.50 * n.width) / 0.060) ** 2 + ((y - n.base + 0.015) / 0.034) ** 2)
        patch.paint(0.72 * patch.edge((1 - nostril) * 0.05), who.skin * np.float32(0.25))
        wing = np.sqrt((x - side * (n.width - 0.075)) ** 2 + (y - n.base + 0.07) ** 2)
        ring = stroke(patch, wing - 0.078, (x * side - n.width) / 0.09, 0.028)
        patch.shade(0.45 * ring, WRINKLE_TINT)


def draw_mouth(patch: Patch, m: Mouth, who: Identity, units: np.ndarray) -> None:
    """Draws lips, the opening with teeth and tongue, and the shadow below the lower lip."""
    x, y = patch.x, patch.y
    u = x / m.width
    top, inner_top, inner_low, low = m.curves(np.minimum(np.maximum(u, np.float32(-1.2)), np.float32(1.2)))
    ends = ramp((m.width - np.abs(x)) * patch.scale + np.float32(0.5))
    below = bump(((y - low - 0.06) / 0.075) ** 2 + (u * 0.9) ** 2)
    patch.shade(0.22 * below, WRINKLE_TINT)
    upper = patch.edge(y - top) * patch.edge(inner_low - y) * ends
    lower = patch.edge(y - inner_top) * patch.edge(low - y) * ends
    patch.paint(lower, who.lips)
    shine = bump(((y - (inner_low + 0.5 * (low - inner_low))) / 0.04) ** 2 + (u / 0.5) ** 2)
    patch.shade(-0.16 * shine * lower)
    patch.paint(upper, who.lips * np.float32(0.86))
    # The opening: dark, with the upper teeth hanging from the upper lip and the tongue lying low.
    opened = ramp((inner_low - inner_top) * patch.scale - np.float32(0.6))
    opening = patch.edge(y - inner_top) * patch.edge(inner_low - y) * ends * opened
    opening = opening * (u * u < m.INNER * m.INNER)
    patch.paint(opening, (0.16, 0.05, 0.06))
    tongue = bump(((y - inner_low - 0.02) / 0.13) ** 2 + (u / 0.75) ** 2)
    patch.paint(opening * 0.85 * np.minimum(tongue * 1.6, 1), (0.66, 0.27, 0.28))
    bite = 0.055 + 0.04 * unit(units, 12) + 0.03 * unit(units, 10) + 0.02 * unit(units, 20)
    teeth = patch.edge(inner_top + bite - y) * (u * u < 0.70)
    patch.paint(opening * 0.95 * teeth, (0.93, 0.91, 0.86))
    # The line between closed lips, pressed darker.
    closed = stroke(patch, y - 0.5 * (inner_top + inner_low), u * 0.98, 0.026) * (1 - opened)
    patch.shade((0.62 + 0.2 * unit(units, 24)) * closed)
    for side in (-1.0, 1.0):
        corner = bump(((x - side * m.width) / 0.07) ** 2 + ((y - m.line(side + 0 * m.y)) / 0.06) ** 2)
        patch.shade(0.40 * corner, WRINKLE_TINT)


def draw_folds(patch: Patch, face: Face, who: Identity, units: np.ndarray) -> None:
    """Draws nasolabial folds, cheeks, the lines from the corners of the mouth and the dimpled chin."""
    x, y = patch.x, patch.y
    m, n = face.mouth, face.nose
    raiser, puller, wrinkler, deepener = unit(units, 10), unit(units, 12), unit(units, 9), unit(units, 11)
    stretcher, depressor, chin = unit(units, 20), unit(units, 15), unit(units, 17)
    age = column(who.age)
    strength = 0.03 + 0.15 * age + 0.36 * np.maximum(np.maximum(raiser, puller * 0.9), np.maximum(wrinkler, deepener))
    strength = strength + 0.10 * stretcher
    start, end = n.base - 0.07, m.y + 0.06
    center, half = 0.5 * (start + end), 0.5 * (end - start) + 0.06
    t = (y - center) / half
    corner = m.width + 0.11 - 0.03 * puller
    path = 0.5 * (corner + n.width + 0.03) + 0.5 * (corner - n.width - 0.03) * t + (0.03 + 0.05 * puller) * (1 - t * t)
    cheek_y = n.base - 0.13
    apple = np.maximum(unit(units, 6), 0.75 * puller)
    for side in (-1.0, 1.0):
        across = x * side
        patch.shade(strength * stroke(patch, across - path, t, 0.05), WRINKLE_TINT)
        spot = bump(((across - 0.56) / 0.27) ** 2 + ((y - cheek_y) / 0.22) ** 2)
        patch.shade(-(0.05 + 0.13 * apple) * spot, (1.0, 0.65, 0.6))
        droop = stroke(
            patch,
            across - m.width - 0.05 - 0.25 * (y - m.y - 0.16),
            (y - m.y - m.corner - 0.11) / 0.15,
            0.035,
        )
        patch.shade((0.05 * age + 0.42 * depressor) * droop, WRINKLE_TINT)
        if side > 0:
            dimple = stroke(patch, y - (m.y + 0.235 + 0.9 * x * x), x / 0.24, 0.04)
            patch.shade(0.50 * chin * dimple, WRINKLE_TINT)
    boss = bump((x / 0.24) ** 2 + ((y - m.y - 0.34) / 0.13) ** 2)
    patch.shade(-0.10 * boss * (1 + chin))
