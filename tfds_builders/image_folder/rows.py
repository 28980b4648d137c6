"""The rows that both layouts of image_folder are read into, and their classes and splits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from PIL import Image

from fer_jax import labels
from fer_jax.errors import UserError
from fer_jax.faces.pictures import ORIENTATION
from fer_jax.parsing import whole_number
from tfds_builders.face_crops import Box

SPLIT = re.compile(r"^[A-Za-z][A-Za-z0-9_]*$")
MOST_SPLITS = 100
RESERVED = "all"  # every split together, in TFDS
SPLIT_WORDS = frozenset(
    ("train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing", "public_test", "private_test")
)
TURNED = (5, 6, 7, 8)  # values of the EXIF field that swap height and width


class Row(NamedTuple):
    """A picture, or one face of it.

    Attributes:
        path: of the file.
        name: its path relative to the folder.
        split: of the data set.
        word: the name of its class in the files.
        subject: the person, None if unknown.
        box: of the face, None if unknown.
    """

    path: str
    name: str
    split: str
    word: str
    subject: str | None = None
    box: Box | None = None


class Classes(NamedTuple):
    """The labels of a data set.

    Attributes:
        names: in order.
        index: of every word in the files.
        warnings: lines on what may be a mistake.
    """

    names: tuple[str, ...]
    index: dict[str, int]
    warnings: tuple[str, ...]


def classes_of(words: Iterable[str]) -> Classes:
    """Emotions under any of their names become the canonical ones in canonical order; other words stay, sorted.

    So do compound expressions and the emotions among them, by `labels.COMPOUND_EMOTIONS`; other pairs come after them.

    Args:
        words: as `labels.class_name` returns them. Those that differ only in case are one class.

    Raises:
        UserError: if two compound expressions have the same parts in another order.
    """
    words = sorted(set(words), key=_numbers_by_value)
    compound = any(len(labels.parts_of(word) or ()) == 2 for word in words)
    read = _expression if compound else labels.emotion_of
    emotions = {word: name for word in words if (name := read(word))}
    order = labels.EMOTIONS
    if compound:
        order = (*labels.COMPOUND_EMOTIONS, *sorted({*emotions.values()} - {*labels.COMPOUND_EMOTIONS}))
        _check_pairs(name for name in order if name in emotions.values())
    others = [word for word in words if word not in emotions]
    warnings = []
    if others:
        if emotions:
            warnings.append(
                f"classes that are not {'compound expressions' if compound else 'emotions'}: {_joined(others)}; so all "
                "classes keep their own names, sorted: correct a misspelled one"
            )
        if all(whole_number(word) is not None for word in words):
            warnings.append("the classes are numbers: if they are emotions, name them, which gives the canonical order")
        first: dict[str, str] = {}
        name_of = {word: first.setdefault(word.casefold(), word) for word in words}
        names = tuple(first.values())
    else:
        name_of = emotions
        names = tuple(name for name in order if name in emotions.values())
    merged: dict[str, list[str]] = {name: [] for name in names}
    for word in words:
        merged[name_of[word]].append(word)
    warnings += [f"{_joined(some)} are one class, {name}" for name, some in merged.items() if len(some) > 1]
    number = {name: n for n, name in enumerate(names)}
    return Classes(names, {word: number[name] for word, name in name_of.items()}, tuple(warnings))


def check_splits(where: object, rows: Sequence[Row]) -> list[str]:
    """Returns a warning if no split is called train.

    Args:
        where: the folder or table, for messages.
        rows: all of them.

    Raises:
        UserError: for very many splits, and classes named like splits.
    """
    splits = split_order(rows)
    if len(splits) > MOST_SPLITS:
        raise UserError(
            f"{where} has {len(splits):,} splits ({_joined(splits)}), more than {MOST_SPLITS}: correct the column "
            "split, or without a table the folders above those of the classes"
        )
    words = sorted({row.word for row in rows})
    if all(word.lower() in SPLIT_WORDS for word in words):
        named = _joined(words)
        raise UserError(f"{where} has {named} in place of classes: arrange it as <split>/<class>/a.jpg")
    if "train" in splits:
        return []
    return [f"{where}: no split is called train ({', '.join(splits)}): set config.data.train_split, or rename one"]


def split_order(rows: Iterable[Row]) -> list[str]:
    """Returns the splits, `train` first."""
    return sorted({row.split for row in rows}, key=lambda split: (split != "train", split))


def wrong_split(name: str) -> str | None:
    """Returns what is wrong with the name of a split, None if nothing is."""
    if name == RESERVED:
        return f"names the split '{RESERVED}', which means every split together: rename it"
    if emotion := labels.emotion_of(name):
        return f"names the split '{name}', which is an emotion ({emotion}): the split comes first, then the class"
    if not SPLIT.match(name):
        return f"names the split '{name}', which may have letters, digits and _ only: rename it"
    return None


def common_size(rows: Sequence[Row]) -> tuple[int, int] | None:
    """Returns (height, width) of all pictures by their headers, None if no header can be read.

    Pictures that cannot be read are reported later, when they are read in full.

    Raises:
        UserError: if two differ.
    """
    first, size = "", None
    for row in rows:
        found = _size_of(row.path)
        if found is None:
            continue
        if size is None:
            first, size = row.name, found
        elif found != size:
            raise UserError(
                f"the pictures differ in size ({first} has {size[1]}x{size[0]} pixels, {row.name} {found[1]}x{found[0]}"
                "): give them one size with --option=size=112, and perhaps --option=crop=square or --option=crop=faces"
            )
    return size


def _size_of(path: str) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ORIENTATION, 1) in TURNED
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception:  # the file is read in full later, and reported there
        return None


def _expression(word: str) -> str | None:
    """Returns the name of an expression as in `labels.COMPOUND_EMOTIONS`, if it is there; None for other words."""
    name, parts = labels.class_name(re.sub("[_-]", " ", word)).lower(), labels.parts_of(word)
    if parts is None:
        return None
    known = {labels.parts_of(one): one for one in labels.COMPOUND_EMOTIONS if one not in labels.PAIR_WORDS}
    return name if name in labels.PAIR_WORDS else known.get(parts, name)


def _check_pairs(names: Iterable[str]) -> None:
    """Raises UserError if two names, other than single words such as 'hatred', are of the same two emotions."""
    first: dict[frozenset[str], str] = {}
    for name in names:
        pair = frozenset(labels.parts_of(name) or ())
        if len(pair) == 2 and name not in labels.PAIR_WORDS and first.setdefault(pair, name) != name:
            raise UserError(f"the classes '{first[pair]}' and '{name}' are the same two emotions: give them one name")


def _numbers_by_value(word: str) -> tuple[bool, int, str]:
    value = whole_number(word)
    return value is None, value or 0, word


def _joined(words: Sequence[str]) -> str:
    shown = [f"'{word}'" for word in words[:5]] + ([f"{len(words) - 5} more"] if len(words) > 5 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
