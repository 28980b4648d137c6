"""One picture of a prepared data set: a row of examples for each class, or of frames for a few clips."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_jax.data.sources.decoding import decoded
from fer_jax.errors import UserError, nearest
from tfds_builders.prepared import require_prepared

TILE, GAP, NAME, TITLE = 96, 4, 130, 34  # pixels
COLUMNS = 10
INK, PAPER, FAINT = (30, 30, 30), (255, 255, 255), (190, 190, 190)


def contact_sheet(builder: Any, split: str, seed: int = 0) -> Image.Image:
    """Returns up to ten examples of each class of a split, drawn by `seed`, under the name of the class.

    For clips it shows one of each class, ten frames from first to last; frames without a face are crossed out.

    Raises:
        UserError: if the data set is not prepared or has no such split.
    """
    require_prepared(builder)
    split = split or next(iter(builder.info.splits))
    if split not in builder.info.splits:
        raise UserError(f"{builder.name} has no split '{split}': {nearest(split, builder.info.splits)}")
    fields = decoded(builder, split, on_disk=True)
    names = builder.info.features["label"].names if "label" in builder.info.features else ["all"]
    labels = fields.get("label", np.zeros(builder.info.splits[split].num_examples, int))
    rng = np.random.default_rng(seed)
    sheet = Image.new("RGB", (NAME + COLUMNS * (TILE + GAP), TITLE + len(names) * (TILE + GAP)), PAPER)
    pen = ImageDraw.Draw(sheet)
    font, names = _legible(names)
    title = f"{builder.info.full_name}, {split}: {len(labels):,} {'clips' if 'frames' in fields else 'images'}"
    pen.text((GAP, GAP + 4), title, INK, font)
    for number, name in enumerate(names):
        top = TITLE + number * (TILE + GAP)
        rows = np.flatnonzero(labels == number)
        pen.text((GAP, top + TILE // 2 - 18), f"{name}\n{len(rows):,}", INK, font)
        if not len(rows):
            continue
        pictures, masks = _of_class(fields, rng.permutation(rows))
        for column, (image, mask) in enumerate(zip(pictures, masks, strict=True)):
            place = (NAME + column * (TILE + GAP), top)
            sheet.paste(_tile(image), place)
            if not mask:
                pen.line((*place, place[0] + TILE, top + TILE), FAINT, 3)
    return sheet


def _legible(names: list[str]) -> tuple[Any, list[str]]:
    """Returns a font that has all letters of the names, and the names, with escapes where no font has them."""
    if not "".join(names).isascii():
        from fer_jax.report.style import font_with

        if installed := font_with("".join(names)):
            return ImageFont.truetype(installed.fname, 15), names
    return ImageFont.load_default(15), [name.encode("ascii", "backslashreplace").decode() for name in names]


def _of_class(fields: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pictures of a row, and which of them show a face."""
    if "image" in fields:
        some = rows[:COLUMNS]
        return fields["image"][some], np.ones(len(some), bool)
    length = fields["length"]
    starts = np.cumsum(length) - length
    clip = rows[np.argmax(length[rows] > 0)]
    shown = min(COLUMNS, int(length[clip]))
    if not shown:
        return np.empty((0,)), np.empty(0, bool)
    places = starts[clip] + np.linspace(0, length[clip] - 1, shown).round().astype(int)
    mask = fields["frame_mask"][places] if "frame_mask" in fields else np.ones(shown, bool)
    return fields["frames"][places], mask


def _tile(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")
    picture.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    scale = TILE / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    tile = Image.new("RGB", (TILE, TILE), PAPER)
    tile.paste(picture, ((TILE - picture.width) // 2, (TILE - picture.height) // 2))
    return tile
