"""`fer-jax explain`: draws where a model looks on each face of photos and videos, and stores all maps as arrays."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from fer_jax.errors import UserError, writing
from fer_jax.evaluation.predictions import csv_text
from fer_jax.inference.draw import place_of
from fer_jax.inference.explain import ExplainedFace
from fer_jax.report.looking import overlay
from fer_jax.report.style import BLUE

SIDE = 336  # pixels of a face as drawn
FRAMES = 16  # of a longer clip so many are drawn, evenly spaced


def explain_files(explained: Sequence[ExplainedFace], kind: str, folder: pathlib.Path) -> str:
    """Writes what `Trained.explain` returns: FOLDER/PATH_<face>_<class>.png for each face, the face beside its map.

    Of a frame the number stands before the face; a clip is a strip of frames above their maps, or above bars of their
    weights, which are in FOLDER/PATH_0_<class>.csv too. FOLDER/explanations.npz has all faces, or frames of clips, that
    have a map: `faces` uint8 [N, H, W, 3], `maps` float32 [N, H, W], `classes` [N], `probabilities` [N, C], and the
    `sources` [N] they are from.

    Returns:
        A line that says what was written.

    Raises:
        UserError: if there is no face.
    """
    rows = [one.row for one in explained if one.face is None]
    problems = [f"{row.source} {'shows no face' if row.status == 'no_face' else row.status}" for row in rows]
    faces = len(explained) - len(problems)
    if not faces:
        raise UserError(f"there is no face to explain{': ' if problems else ''}{'; '.join(problems[:3])}")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for one in explained:
            if one.face is not None:
                path = folder / f"{_name(one)}_{place_of(one.row.expression or '').name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                relevance = _around_mean(one.map) if kind == "attention" and one.map is not None else one.map
                _drawn(one.face, relevance, one.row.frame_weights).save(path)
                if one.map is None:
                    lines = enumerate(f"{weight:.6g}" for weight in one.row.frame_weights)
                    path.with_suffix(".csv").write_text(csv_text([("frame", "weight"), *lines]))
        _save_arrays(explained, folder / "explanations.npz")
    without = f"; without a face: {len(problems):,}, such as {'; '.join(problems[:3])}" if problems else ""
    what = "faces or clips" if faces > 1 else "face or clip"
    return f"{folder}: {faces:,} {what} explained{without}"


def _save_arrays(explained: Sequence[ExplainedFace], path: pathlib.Path) -> None:
    known = [(one, one.face, one.map) for one in explained if one.face is not None and one.map is not None]
    if not known:
        return
    counts = [len(face) if face.ndim == 4 else 1 for _, face, _ in known]
    by_row = {
        "sources": [_name(one) for one, _, _ in known],
        "classes": [one.row.expression or "" for one, _, _ in known],
        "probabilities": [one.row.probabilities for one, _, _ in known],
    }
    arrays: dict[str, Any] = {name: np.repeat(np.array(values), counts, axis=0) for name, values in by_row.items()}
    arrays["faces"] = np.concatenate([face.reshape(-1, *face.shape[-3:]) for _, face, _ in known])
    arrays["maps"] = np.concatenate([shown.reshape(-1, *shown.shape[-2:]) for _, _, shown in known])
    np.savez_compressed(path, **arrays)


def _name(one: ExplainedFace) -> str:
    frame = "" if one.row.frame is None else f"_{one.row.frame}"
    return f"{place_of(one.row.source)}{frame}_{one.row.face or 0}"


def _drawn(face: np.ndarray, relevance: np.ndarray | None, weights: Sequence[float]) -> Image.Image:
    """Draws a face beside its map, or frames of a clip above their maps or, without maps, the bars of their weights."""
    if face.ndim == 3 and relevance is not None:
        both = np.hstack([face.repeat(3 // face.shape[-1], axis=-1), overlay(face, relevance)])
        return Image.fromarray(both).resize((2 * SIDE, SIDE), Image.Resampling.BILINEAR)
    kept = np.unique(np.linspace(0, len(face) - 1, min(FRAMES, len(face))).round().astype(int))
    if relevance is None:
        below = [_bar(weights[k] / max(max(weights), 1e-12), face.shape[1]) for k in kept]
    else:
        below = [overlay(face[k], relevance[k]) for k in kept]
    return Image.fromarray(np.vstack([np.hstack(list(face[kept])), np.hstack(below)]))


def _around_mean(weights: np.ndarray) -> np.ndarray:
    """Returns how far weights of places [H, W] are from their mean, 0 where there are none."""
    return np.where(weights > 0, weights - weights[weights > 0].mean(), 0)


def _bar(share: float, side: int) -> np.ndarray:
    """A bar of a height in 0 .. 1 on white, uint8 [side, side, 3]."""
    drawn = np.full((side, side, 3), 255, np.uint8)
    drawn[side - round(share * side) :, side // 8 : -side // 8] = [round(255 * part) for part in to_rgb(BLUE)]
    return drawn
