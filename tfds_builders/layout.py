"""Finds the original folders inside the one that the user names, which may add a few levels."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

from fer_jax.errors import UserError

DEPTH = 2  # levels of folders that unpacking may have added
ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".tgz", ".gz")


class Absent(UserError):
    """A file or folder of the originals is not there; `PictureBuilder` adds where their layout is described."""


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
    return _only(found, start, " or ".join(wanted), name, _above(start, wanted))


def _above(start: pathlib.Path, wanted: Sequence[str]) -> str:
    """Returns a hint if the user named a folder below the right one, else ''."""
    inner = [pathlib.PurePath(one).parts[1:] for one in wanted]
    return f": give {start.parent} instead" if any(parts and start.joinpath(*parts).exists() for parts in inner) else ""


def folders_with(manual_dir: os.PathLike[str] | str, matches: Callable[[str], object]) -> list[pathlib.Path]:
    """Returns `manual_dir` and the folders a little below it in which the name of some file or folder matches."""
    folders = []
    for folder in _below(pathlib.Path(manual_dir), DEPTH):
        with os.scandir(folder) as entries:
            if any(matches(entry.name) for entry in entries):
                folders.append(folder)
    return folders


def root_with(
    manual_dir: os.PathLike[str] | str, matches: Callable[[str], object], name: str, example: str
) -> pathlib.Path:
    """As `root_of`, for files or folders whose names match a pattern, such as `example`."""
    return _only(folders_with(manual_dir, matches), pathlib.Path(manual_dir), example, name)


def _only(found: Sequence[pathlib.Path], start: pathlib.Path, wanted: str, name: str, hint: str = "") -> pathlib.Path:
    """Returns the one folder that was found; raises for none, with a hint, and for several."""
    if len(found) > 1:
        raise UserError(
            f"{start} holds {name} more than once ({found[0]} and {found[1]}): give one of these as --manual_dir"
        )
    if not found:
        raise Absent(f"{start} has no {wanted} of {name}{packed(start) or hint}")
    return found[0]


def folder_of(root: pathlib.Path, names: Sequence[str], name: str) -> pathlib.Path:
    """Returns the folder below `root` that has one of several names; the inner one if it is doubled.

    Raises:
        UserError: if there is none; it names an archive to unpack if there is one in its place.
    """
    for one in names:
        if (root / one).is_dir():
            return undoubled(root / one)
    first = root / names[0]
    raise Absent(f"{first} of {name} is not there{packed(first.parent, first.name)}")


def file_of(root: pathlib.Path, names: Sequence[str], name: str) -> pathlib.Path:
    """Returns the file below `root` that has one of several names.

    Raises:
        UserError: if there is none.
    """
    for one in names:
        if (root / one).is_file():
            return root / one
    first = root / names[0]
    raise Absent(f"{first} of {name} is not there{packed(first.parent)}")


def undoubled(folder: pathlib.Path) -> pathlib.Path:
    """Returns `aligned/aligned` for an `aligned` that holds nothing else, as some archives unpack."""
    inner = [entry for entry in _visible(folder)]
    if len(inner) == 1 and inner[0].name == folder.name and inner[0].is_dir():
        return inner[0]
    return folder


def packed(folder: pathlib.Path, stem: str = "") -> str:
    """Returns a hint on the archives in a folder, else '': ': unpack aligned.zip there first'."""
    archives = [entry.name for entry in _visible(folder) if entry.suffix.lower() in ARCHIVES and entry.is_file()]
    named = [archive for archive in archives if archive.lower().startswith(stem.lower())]
    if not named:
        return ""
    many = f" and {len(named) - 1} more" if len(named) > 1 else ""
    return f": unpack {named[0]}{many} there first"


def _below(folder: pathlib.Path, depth: int) -> Iterable[pathlib.Path]:
    yield folder
    if depth == 0:
        return
    try:
        with os.scandir(folder) as entries:  # knows whether an entry is a folder
            inner = sorted(e.path for e in entries if not e.name.startswith((".", "__MACOSX")) and e.is_dir())
    except (NotADirectoryError, PermissionError):
        return
    for path in inner:
        yield from _below(pathlib.Path(path), depth - 1)


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return sorted(
            entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name != "__MACOSX"
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
