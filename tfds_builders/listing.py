"""The examples of a data set as listed, before any picture is read: one item per example."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from fer_jax import labels
from fer_jax.errors import FEW, UserError
from fer_jax.faces.pictures import is_picture
from tfds_builders.problems import Problems

ALL = "in all"  # the key of a split's total in published numbers


@dataclasses.dataclass(frozen=True)
class Item:
    """One example of a data set.

    Attributes:
        files: the picture, or those of a clip in order, or its video.
        label: index in the classes of the data set.
        fields: further features of the example.
        crop: the box of the face, or what else the builder's own `encode` needs; None if it needs nothing.
        title: the name of the example in messages, such as the folder of a clip; by default its first file.
    """

    files: tuple[str, ...]
    label: int
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    crop: Any = None
    title: str = ""

    @property
    def name(self) -> str:
        """The name of the example in messages."""
        return self.title or self.files[0]


@dataclasses.dataclass(frozen=True)
class Listing:
    """The examples of every split in their final order, and what is known about them.

    Attributes:
        items: split -> examples.
        found: lines on the files that were used.
        warnings: lines on what is unusual but not wrong.
        metadata: stored with the prepared data set (JSON types).
        expected: split -> class -> the published number of examples; {} if unknown, {ALL: n} if only the
            total is known.
    """

    items: Mapping[str, Sequence[Item]]
    found: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    expected: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)

    def counts(self, classes: Sequence[str]) -> dict[str, dict[str, int]]:
        """Returns split -> class -> number of examples."""
        return {split: class_counts((item.label for item in items), classes) for split, items in self.items.items()}


def class_counts(indices: Iterable[int], classes: Sequence[str]) -> dict[str, int]:
    """Returns class -> number of examples."""
    found = Counter(indices)
    return {name: found[i] for i, name in enumerate(classes)}


def by_class(
    dataset: str, counts: Iterable[int], classes: Sequence[str], codes: Collection[labels.Code] = ()
) -> dict[str, int]:
    """Returns class -> number of examples, from the published numbers of a data set's codes; 0 of other classes.

    Args:
        dataset: its name.
        counts: one for each code.
        classes: of the data set.
        codes: by default all of the data set that stand for a class.
    """
    codes = codes or [code for code, word in labels.CODES[dataset].items() if word not in labels.NOT_EMOTIONS]
    by_name = {labels.canonical(dataset, code): n for code, n in zip(codes, counts, strict=True)}
    return {name: by_name.get(name, 0) for name in classes}


def unusual_counts(counts: Mapping[str, Mapping[str, int]], expected: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Returns what differs from the published numbers, a line per split, such as 'test: 3 instead of 680 neutral'."""
    lines = []
    for split, pairs in _compared(counts, expected).items():
        wrong = [f"{there:,} instead of {n:,} {name}" for name, (there, n) in pairs.items() if there != n]
        if wrong:
            lines.append(f"{split}: {', '.join(wrong)}")
    return lines


def _compared(
    counts: Mapping[str, Mapping[str, int]], expected: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, tuple[int, int]]]:
    """Returns split -> class -> (number, published number) of the classes whose numbers are published."""
    there = {split: {ALL: sum(counts.get(split, {}).values()), **counts.get(split, {})} for split in expected}
    return {
        split: {name: (there[split].get(name, 0), n) for name, n in classes.items()}
        for split, classes in expected.items()
    }


def check_counts(
    name: str,
    counts: Mapping[str, Mapping[str, int]],
    expected: Mapping[str, Mapping[str, int]],
    allow: bool,
    missing: int = 0,
) -> tuple[str, ...]:
    """Compares the numbers with the published ones; returns warnings if others are allowed.

    Args:
        name: of the data set.
        counts, expected: split -> class -> number.
        allow: whether any numbers are accepted.
        missing: the number of examples that are known to be missing.

    Raises:
        UserError: if they differ and that is not allowed.
    """
    lines = unusual_counts(counts, expected)
    lacking = [n - there for pairs in _compared(counts, expected).values() for there, n in pairs.values()]
    if lines and not allow and (min(lacking) < 0 or sum(lacking) > missing):
        raise UserError(
            f"{name}: not the published numbers of examples ({'; '.join(lines)}): this copy is incomplete or altered; "
            "get another, or accept it with --allow_counts"
        )
    return tuple(f"not the published numbers of examples: {line}" for line in lines)


def one_sided(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Returns a line for each class that has examples in some splits (split -> class -> number) and none in others.

    If they are many, such as people, it is one line.
    """
    lines = []
    for name in dict.fromkeys(name for classes in counts.values() for name in classes):
        there = {split: classes.get(name, 0) for split, classes in counts.items()}
        lacking = [split for split, number in there.items() if not number]
        if 0 < len(lacking) < len(there):
            having = ", ".join(f"{number:,} in {split}" for split, number in there.items() if number)
            lines.append(f"class '{name}' has {having} and none in {' and '.join(lacking)}")
    return lines if len(lines) <= FEW else [f"{lines[0]}, and so on for {len(lines):,} classes"]


def numbered(subjects: Iterable[str]) -> dict[str, int]:
    """Returns person -> number from 0, sorted."""
    return {subject: number for number, subject in enumerate(sorted(set(subjects)))}


def told(counts: Mapping[str, int]) -> str:
    """Returns class -> number of examples in one line."""
    if len(counts) > FEW:
        return f"{len(counts):,} classes of {min(counts.values()):,} to {max(counts.values()):,}"
    return "  ".join(f"{name} {number:,}" for name, number in counts.items())


def shared_files(items: Mapping[str, Sequence[Item]]) -> list[str]:
    """Returns a line for each two splits with examples of the same file, cut or not."""
    files = {split: {item.files[0] for item in some if item.files} for split, some in items.items()}
    lines = []
    for one, other in itertools.combinations(files, 2):
        if both := sorted(files[one] & files[other]):
            lines.append(f"{len(both):,} files have examples in {one} and in {other}, such as {both[0]}")
    return lines


def nfc(text: str) -> str:
    """Returns a file name in Unicode NFC. macOS decomposes names, so archives and lists hold either form."""
    return unicodedata.normalize("NFC", text)


def files_below(folder: str | os.PathLike[str], matches: Callable[[str], object] = bool) -> dict[str, str]:
    """Returns name -> path of the files directly in a folder whose name matches; {} if it does not exist.

    Names are in NFC, except that of a file beside one with the same NFC name.
    """
    files: dict[str, str] = {}
    for entry in _entries(folder):
        if matches(entry.name) and entry.is_file():
            name = nfc(entry.name)
            files[entry.name if name in files else name] = entry.path
    return files


def pictures_in(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Returns name -> path of the pictures directly in a folder, as `files_below`."""
    return files_below(folder, is_picture)


def folders_in(folder: str | os.PathLike[str], pattern: str = r"[^.].*") -> dict[str, str]:
    """Returns name -> path of the folders in a folder whose name matches, sorted."""
    there = {
        entry.name: entry.path for entry in _entries(folder) if re.fullmatch(pattern, entry.name) and entry.is_dir()
    }
    return dict(sorted(there.items()))


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def check_unlisted(files: Mapping[str, str], listed: Iterable[str], list_name: str, problems: Problems) -> None:
    """Adds every file of a folder that its label list does not name to the problems."""
    for name in sorted(set(files) - set(listed)):
        problems.extra(files[name], f"is not in {list_name}: remove it from the folder, or complete the list")
