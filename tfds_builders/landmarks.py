"""Finds 68 landmarks in the faces of a prepared data set and keeps them beside it."""

from __future__ import annotations

import io
import pathlib
from typing import Any

import numpy as np
from tqdm import tqdm

from fer_jax.data.sources.decoding import decoded
from fer_jax.data.sources.points import LANDMARKS, stored_landmarks
from fer_jax.data.sources.records import data_digest
from fer_jax.errors import writing
from fer_jax.faces.landmarks import LICENSE, Landmarks
from fer_jax.parsing import read_arrays
from fer_jax.storage import write_whole
from tfds_builders.prepared import require_prepared

CHUNK = 256  # pictures decoded at a time


def find_landmarks(builder: Any, yunet: str | None = None) -> None:
    """Writes `LANDMARKS` beside a prepared data set and prints how many faces have them.

    By split: `points` float32 [N, 68, 2] in pixels of the stored picture (of clips: of all their frames, one after the
    other; NaN where none are found), `found` bool [N], `data_digest` and `detector`. It is written after every split,
    and the next call goes on with the next one.

    Raises:
        UserError: as `Landmarks`, and if the file there is of other data.
    """
    require_prepared(builder)
    finder, path = Landmarks(yunet), pathlib.Path(builder.data_path) / LANDMARKS
    print(f"note: {LICENSE}", flush=True)
    stored = read_arrays(path) if path.exists() else {}
    for split in builder.info.splits:
        digest = data_digest(builder, split)
        if f"{split}/points" in stored:
            stored_landmarks(path.parent, split, digest)  # refuses those of other data
        if str(stored.get(f"{split}/detector")) != str(finder):
            points = _found(finder, builder, split)
            fields = {"points": points, "found": np.isfinite(points).all(axis=(1, 2))}
            fields |= {"data_digest": np.array(digest), "detector": np.array(str(finder))}
            stored |= {f"{split}/{name}": values for name, values in fields.items()}
            file = io.BytesIO()
            np.savez(file, **stored)  # pyright: ignore[reportArgumentType]  (its stubs take any name for an option)
            with writing(path):
                write_whole(path, file.getvalue())
        found = stored[f"{split}/found"]
        print(f"{split}: landmarks in {found.sum():,} of {len(found):,} pictures", flush=True)
    print(f"wrote {path}")


def _found(finder: Landmarks, builder: Any, split: str) -> np.ndarray:
    """Returns the landmarks of all pictures of a split, float32 [N, 68, 2]; NaN where none are found."""
    fields = decoded(builder, split, on_disk=True)
    pictures = fields["image"] if "image" in fields else fields["frames"]
    points = np.full((len(pictures), 68, 2), np.nan, np.float32)
    with tqdm(total=len(pictures), desc=split, unit=" pictures", disable=None, leave=False) as bar:
        for start in range(0, len(pictures), CHUNK):
            for row, image in enumerate(pictures[start : start + CHUNK], start):
                if (marks := finder(image)) is not None:
                    points[row] = marks
                bar.update()
    return points
