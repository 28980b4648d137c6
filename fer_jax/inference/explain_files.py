"""`fer-jax explain`: for each face of photos a picture of where the model looks, and all maps as arrays."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from fer_jax.errors import UserError, writing
from fer_jax.faces.inputs import Input
from fer_jax.inference.draw import place_of
from fer_jax.inference.explain import explain, overlay
from fer_jax.inference.predict import Reader, find_crops
from fer_jax.inference.trained import Trained

MOST_FACES = 1000  # in one call: their maps are one file
SIDE = 336  # pixels of a face as drawn


def explain_files(model: Trained, inputs: Sequence[Input], reader: Reader, kind: str, folder: pathlib.Path) -> str:
    """Writes FOLDER/PATH_<face>_<class>.png for each face, the face beside its map, and FOLDER/explanations.npz.

    The arrays are `faces` uint8 [N, H, W, 3], `maps` float32 [N, H, W], `classes` [N] and `logits` [N, C], in the order
    of `sources` [N].

    Returns:
        A line that says what was written.

    Raises:
        UserError: if there is no face, or there are too many.
    """
    videos = [source.name for source in inputs if source.kind != "photo"]
    if videos:
        raise UserError(f"{videos[0]}: explain takes photos; save the frames that you want to see explained")
    found, problems = [], []
    for source in inputs:
        crops, problem = find_crops(source, reader)
        found += [(f"{place_of(source.name)}_{number}", crop) for number, crop in enumerate(crops)]
        problems += [f"{source.name} {problem}"] if problem else []
        if len(found) > MOST_FACES:
            raise UserError(f"more than {MOST_FACES:,} faces: explain fewer photos at once")
    if not found:
        raise UserError(f"there is no face to explain{': ' if problems else ''}{'; '.join(problems[:3])}")
    names, crops = zip(*found, strict=True)
    faces = np.stack(crops)
    explained = explain(model, faces, kind=kind)
    with writing(folder):
        for name, face, relevance, c in zip(names, faces, explained.maps, explained.classes, strict=True):
            both = Image.fromarray(np.hstack([face, overlay(face, relevance)]))
            path = folder / f"{name}_{place_of(model.classes[c]).name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            both.resize((2 * SIDE, SIDE), Image.Resampling.BILINEAR).save(path)
        arrays = {field.name: getattr(explained, field.name) for field in dataclasses.fields(explained)}
        np.savez_compressed(folder / "explanations.npz", faces=faces, sources=np.array(names), **arrays)
    without = f"; {len(problems):,} photos without: {'; '.join(problems[:3])}" if problems else ""
    return f"{folder}: {len(faces):,} {'faces' if len(faces) > 1 else 'face'} explained{without}"
