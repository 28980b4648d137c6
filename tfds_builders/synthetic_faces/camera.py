"""The camera: blur, low resolution, sensor noise, block quantisation, and rounding to bytes."""

from __future__ import annotations

import dataclasses

import numpy as np

from fer_jax.randomness import Purpose, Stream, raw_words
from tfds_builders.synthetic_faces.canvas import column


@dataclasses.dataclass(frozen=True)
class Camera:
    """B cameras; every defect is zero in a clean one."""

    blur: np.ndarray  # weight of the outer taps, 0 .. 0.25
    coarse: np.ndarray  # share of a half-resolution copy
    noise: np.ndarray  # standard deviation, in 0..1 gray levels
    quantum: np.ndarray  # step of the block transform's coefficients


def sample_camera(stream: Stream) -> Camera:
    """Draws cameras: most are good."""
    values = dict(
        blur=np.where(stream.chance(0.30), stream.uniform(0.04, 0.16), 0.0),
        coarse=np.where(stream.chance(0.08), stream.uniform(0.3, 0.8), 0.0),
        noise=stream.uniform(0.0, 0.022),
        quantum=np.where(stream.chance(0.20), stream.uniform(0.03, 0.09), 0.0),
    )
    return Camera(**{name: value.astype(np.float32) for name, value in values.items()})


def clean_camera(count: int) -> Camera:
    """Returns cameras without any defect."""
    zero = np.zeros(count, np.float32)
    return Camera(zero, zero, zero, zero)


def _blur(rgb: np.ndarray, weight: np.ndarray) -> np.ndarray:
    center = 1 - 2 * weight
    padded = np.concatenate([rgb[..., :1], rgb, rgb[..., -1:]], axis=-1)
    rgb = center * rgb + weight * (padded[..., :-2] + padded[..., 2:])
    padded = np.concatenate([rgb[..., :1, :], rgb, rgb[..., -1:, :]], axis=-2)
    return center * rgb + weight * (padded[..., :-2, :] + padded[..., 2:, :])


def _half_resolution(rgb: np.ndarray) -> np.ndarray:
    """Averages 2x2 pixels and enlarges by repetition; an odd last row or column stays as it is."""
    out = rgb.copy()
    rows, columns = rgb.shape[-2] // 2 * 2, rgb.shape[-1] // 2 * 2
    quads = [rgb[..., i:rows:2, j:columns:2] for i in (0, 1) for j in (0, 1)]
    mean = (quads[0] + quads[1] + quads[2] + quads[3]) * np.float32(0.25)
    for i in (0, 1):
        for j in (0, 1):
            out[..., i:rows:2, j:columns:2] = mean
    return out


def _hadamard(blocks: np.ndarray, axis: int) -> np.ndarray:
    """The 8-point Walsh-Hadamard transform along an axis: only sums and differences, so reproducible."""
    parts = [np.take(blocks, i, axis) for i in range(8)]
    for step in (1, 2, 4):
        parts = [parts[i] + parts[i + step] if not i & step else parts[i - step] - parts[i] for i in range(8)]
    return np.stack(parts, axis)


def _quantise_blocks(rgb: np.ndarray, quantum: np.ndarray) -> np.ndarray:
    """Rounds coefficients of 8x8 blocks, coarser for higher orders: JPEG with a simpler transform."""
    out = rgb.copy()
    rows, columns = rgb.shape[-2] // 8 * 8, rgb.shape[-1] // 8 * 8
    whole = rgb[..., :rows, :columns]
    blocks = whole.reshape(*whole.shape[:-2], rows // 8, 8, columns // 8, 8)
    order = np.array([0, 3, 2, 3, 1, 3, 2, 3], np.float32)  # about how fast each Walsh function changes sign
    steps = (1 + order[:, None, None] + order[None, None, :]) * quantum[..., None, None, None, None] * np.float32(2)
    spectrum = _hadamard(_hadamard(blocks, -1), -3)
    spectrum = np.floor(spectrum / steps + np.float32(0.5)) * steps
    whole = _hadamard(_hadamard(spectrum, -1), -3) * np.float32(1 / 64)
    out[..., :rows, :columns] = whole.reshape(*rgb.shape[:-2], rows, columns)
    return out


def _noise(seed: int, indices: np.ndarray, frames: np.ndarray, size: int) -> np.ndarray:
    """Returns [3, B, size, size] float32: sums of four random bytes, mean 0, standard deviation 1."""
    count = size * size * 3
    pictures = []
    for index, frame in zip(indices.tolist(), frames.tolist(), strict=True):
        words = raw_words(seed, Purpose.PIXELS, index, frame, -(-count * 4 // 8))
        quads = words.astype("<u8").view(np.uint8)[: count * 4].reshape(4, 3, size, size).astype(np.int16)
        pictures.append(quads[0] + quads[1] + quads[2] + quads[3])
    deviation = 147.8  # of the sum of four bytes: sqrt(4 (256^2 - 1) / 12)
    return (np.stack(pictures, axis=1).astype(np.float32) - np.float32(510)) * np.float32(1 / deviation)


def photograph(rgb: np.ndarray, camera: Camera, seed: int, indices: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Turns painted pictures [3, B, H, W] in 0..1 into stored ones, [B, H, W, 3] uint8."""
    rgb = _blur(rgb, column(camera.blur))
    coarse = np.flatnonzero(camera.coarse > 0)
    if coarse.size:
        share = column(camera.coarse[coarse])
        rgb[:, coarse] += share * (_half_resolution(rgb[:, coarse]) - rgb[:, coarse])
    noisy = np.flatnonzero(camera.noise > 0)
    if noisy.size:
        grain = _noise(seed, indices[noisy], frames[noisy], rgb.shape[-1])
        rgb[:, noisy] += column(camera.noise[noisy]) * grain
    blocked = np.flatnonzero(camera.quantum > 0)
    if blocked.size:
        rgb[:, blocked] = _quantise_blocks(rgb[:, blocked], camera.quantum[blocked])
    levels = np.floor(np.minimum(np.maximum(rgb, 0), 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(levels, 0, -1))
