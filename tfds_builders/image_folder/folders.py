"""Pictures in folders: `<split>/<class>/a.jpg`, or `<class>/a.jpg` for one split."""

from __future__ import annotations

import os
import pathlib
from collections import Counter
from typing import NamedTuple

from fer_jax import labels
from fer_jax.errors import UserError
from fer_jax.faces.pictures import is_picture
from tfds_builders.image_folder.rows import Row, wrong_split
from tfds_builders.layout import packed
from tfds_builders.listing import nfc
from tfds_builders.problems import Problems

DEEPEST = 3  # one folder around the splits is ignored
ONE_SPLIT = "train"
LEFT_BEHIND = ("thumbs.db", "desktop.ini")  # by Windows
WANTED = "arrange them as <split>/<class>/a.jpg, or as <class>/a.jpg"


class Tree(NamedTuple):
    """What lies below a folder.

    Attributes:
        pictures: paths relative to it, as their parts.
        empty: folders without a picture, relative to it.
        others: number of files that are not read as pictures, by ending.
    """

    pictures: list[tuple[str, ...]]
    empty: list[str]
    others: Counter[str]


def read_folders(root: pathlib.Path, problems: Problems) -> tuple[list[Row], list[str]]:
    """Returns the pictures sorted by path, and warnings.

    Raises:
        UserError: if the folders are not arranged as a data set.
    """
    tree = Tree([], [], Counter())
    _walk(root, (), tree)
    kinds = ", ".join(f"{n:,} {kind or 'without an ending'}" for kind, n in tree.others.most_common(5))
    left_out = f"files with endings that are not read as pictures are left out: {kinds}" if kinds else ""
    if not tree.pictures:
        advice = packed(root) or f": {left_out or WANTED}"
        raise UserError(f"{root} holds no pictures, {DEEPEST + 1} folders deep{advice}")
    pictures, depths = sorted(tree.pictures), Counter(len(parts) - 1 for parts in tree.pictures)
    around = ()
    if min(depths) == DEEPEST and len({parts[0] for parts in pictures}) == 1:
        around, pictures = pictures[0][:1], [parts[1:] for parts in pictures]
        depths = Counter({depth - 1: n for depth, n in depths.items()})
    if len(depths) > 1 or not 1 <= min(depths) < DEEPEST:
        shown = [min(parts for parts in pictures if len(parts) - 1 == depth) for depth in sorted(depths)]
        raise UserError(
            f"{root.joinpath(*around)} does not arrange its pictures by class "
            f"({', '.join('/'.join(parts) for parts in shown[:2])}): {WANTED}"
        )
    rows, unnamed = [], set()
    for parts in pictures:
        split = parts[0] if len(parts) == DEEPEST else ONE_SPLIT
        path = os.path.join(root, *around, *parts)
        rows.append(Row(path, nfc("/".join(parts)), split, labels.class_name(parts[-2])))
        if not rows[-1].word:
            unnamed.add(os.path.dirname(path))
    for folder in sorted(unnamed):
        problems.mistake(repr(folder), "has a name without a visible character: rename it")
    for split in sorted({row.split for row in rows}):
        if told := wrong_split(split):
            problems.mistake(root.joinpath(*around, split), told)
    warnings = [f"{root / folder} holds no picture" for folder in tree.empty]
    if left_out:
        warnings.append(f"{root}: {left_out}")
    return rows, warnings


def _walk(root: pathlib.Path, parts: tuple[str, ...], tree: Tree) -> bool:
    """Lists a folder; returns whether it holds pictures, directly or below."""
    inner, here = [], 0
    with os.scandir(root.joinpath(*parts)) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                inner.append(entry.name)
            elif is_picture(entry.name) and entry.is_file():
                tree.pictures.append((*parts, entry.name))
                here += 1
            elif (
                parts and entry.name.lower() not in LEFT_BEHIND
            ):  # licenses and read-me files may lie beside the folders
                tree.others[os.path.splitext(entry.name)[1].lower()] += 1
    # One level more than allowed, so that pictures too deep are reported.
    below = [_walk(root, (*parts, name), tree) for name in inner] if len(parts) <= DEEPEST else []
    if parts and not here and not any(below):
        tree.empty.append("/".join(parts))
    return bool(here) or any(below)
