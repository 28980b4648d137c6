"""Finds the original folders inside the one that the user names, which may add a few levels."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

from fer_jax.errors import UserError

DEPTH = 2  # levels of folders that unpacking may have added
ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".tgz", ".gz")


class Absent(UserError):
    """A file or folder of the originals is not there; `PictureBuilder` adds where their layout is described."""


def find(manual_dir: os.PathLike[str] | str, wanted: Sequence[str], name: str) -> pathlib.Path:
    """Returns the file or folder that has one of the paths `wanted`, below `manual_dir` or a folder a little below it.

    Raises:
        UserError: as `root_of`.
    """
    return place_of(root_of(manual_dir, wanted, name), wanted, name)


def root_of(manual_dir: os.PathLike[str] | str, wanted: Sequence[str], name: str) -> pathlib.Path:
    """Returns the folder that holds one of `wanted` (relative paths), `manual_dir` itself or one a little below.

    Raises:
        UserError: if there is none, or more than one.
    """
    start = pathlib.Path(manual_dir)
    found: list[pathlib.Path] = []
    for folder in _below(start, DEPTH):
        # A match inside one that was found before is a doubled folder.
        inside = any(folder.is_relative_to(one / path.partition("/")[0]) for one in found for path in wanted)
        if not inside and any((folder / one).exists() for one in wanted):
            found.append(folder)
    inner = [pathlib.PurePath(one).parts[1:] for one in wanted]
    above = any(parts and start.joinpath(*parts).exists() for parts in inner)  # the user named a folder too far inside
    return only(found, start, " or ".join(wanted), name, f": give {start.parent} instead" if above else "")


def folders_with(
    manual_dir: os.PathLike[str] | str, matches: Callable[[str], object], depth: int = DEPTH
) -> list[pathlib.Path]:
    """Returns `manual_dir` and the folders a little below it in which the name of some file or folder matches."""
    folders = _below(pathlib.Path(manual_dir), depth)
    return [folder for folder in folders if any(matches(name) for name in os.listdir(folder))]


def only(
    found: Sequence[pathlib.Path], start: os.PathLike[str] | str, wanted: str, name: str, hint: str = ""
) -> pathlib.Path:
    """Returns the one folder that was found below `start`; raises for several, and for none, with a hint."""
    if len(found) > 1:
        raise UserError(
            f"{start} holds {name} more than once ({found[0]} and {found[1]}): give one of these as --manual_dir"
        )
    if not found:
        raise Absent(f"{start} has no {wanted} of {name}{packed(start) or hint}")
    return found[0]


def place_of(root: pathlib.Path, names: Sequence[str], name: str) -> pathlib.Path:
    """Returns the file or folder below `root` that has one of several names; the inner one if a folder is doubled.

    Raises:
        UserError: if there is none; it names an archive to unpack if there is one in its place.
    """
    for one in names:
        if (root / one).exists():
            return undoubled(root / one)
    first = root / names[0]
    raise Absent(f"{first} of {name} is not there{packed(first.parent, first.name)}")


def undoubled(folder: pathlib.Path) -> pathlib.Path:
    """Returns `aligned/aligned` for an `aligned` that holds nothing else, as some archives unpack."""
    inner = _visible(folder)
    return inner[0] if len(inner) == 1 and inner[0].name == folder.name and inner[0].is_dir() else folder


def packed(folder: os.PathLike[str] | str, stem: str = "") -> str:
    """Returns a hint on the archives in a folder, else '': ': unpack aligned.zip there first'."""
    archives = [entry.name for entry in _visible(pathlib.Path(folder)) if entry.name.lower().endswith(ARCHIVES)]
    named = [archive for archive in archives if archive.lower().startswith(stem.lower())]
    if not named:
        return ""
    many = f" and {len(named) - 1} more" if len(named) > 1 else ""
    return f": unpack {named[0]}{many} there first"


def _below(folder: pathlib.Path, depth: int) -> Iterator[pathlib.Path]:
    yield folder
    if depth:
        for inner in _visible(folder, os.DirEntry.is_dir):
            yield from _below(inner, depth - 1)


def _visible(folder: pathlib.Path, matches: Callable[[os.DirEntry[str]], object] = bool) -> list[pathlib.Path]:
    """Returns what lies in a folder, but for what systems leave there, sorted."""
    try:
        with os.scandir(folder) as entries:  # knows whether an entry is a folder
            return sorted(
                pathlib.Path(e.path) for e in entries if not e.name.startswith((".", "__MACOSX")) and matches(e)
            )
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
