"""The two layouts of FED-RO: a folder for each class, or a list beside the pictures."""

from __future__ import annotations

import os
import pathlib
import re
from typing import NamedTuple

from fer_jax import labels
from fer_jax.errors import UserError
from fer_jax.faces.pictures import EXTENSIONS, is_picture
from fer_jax.parsing import read_text, text_lines, whole_number
from tfds_builders.layout import folders_with, packed, undoubled
from tfds_builders.listing import check_unlisted, files_below, nfc
from tfds_builders.problems import Problems

LISTS = (".txt", ".csv", ".lst")
# 'neural/a.jpg', 'a.jpg happy', 'a.jpg,happy'; any word is matched, so that a wrong one is reported.
ROW = re.compile(
    rf"^(?P<image>.*?({'|'.join(re.escape(e) for e in sorted(EXTENSIONS))}))(?:[\s,;]+(?P<label>\S+))?\s*$",
    re.IGNORECASE,
)


class Picture(NamedTuple):
    """A picture and the name of its class in the files."""

    path: str
    name: str
    code: str


def read(manual_dir: str | os.PathLike[str], problems: Problems) -> tuple[list[Picture], str]:
    """Returns the pictures in order, and a line that says how they were found.

    Raises:
        UserError: if neither layout is found, or one of them more than once.
    """
    folders = folders_with(manual_dir, lambda name: canonical(name) is not None)
    if len(folders) > 1:
        raise UserError(
            f"{manual_dir} holds folders of classes more than once ({folders[0]} and {folders[1]}): "
            "give one of these as --manual_dir"
        )
    if folders:
        return _by_folder(folders[0], problems)
    lists = [path for folder in folders_with(manual_dir, _may_be_list) for path in _lists(folder)]
    if len(lists) > 1:
        raise UserError(f"{manual_dir} holds two lists ({lists[0]} and {lists[1]}): leave one of them there")
    if not lists:
        raise UserError(
            f"{manual_dir} has neither folders of classes (happy/, sad/ ...) nor a list with '<image> <label>' in its "
            f"rows{packed(pathlib.Path(manual_dir))}"
        )
    return _by_list(lists[0], problems)


def canonical(word: str) -> str | None:
    """Returns the emotion of a word of FED-RO's, None if it is not one of the seven."""
    code = labels.class_name(word).lower()
    name = labels.canonical("fed_ro", code) if code in labels.CODES["fed_ro"] else labels.emotion_of(word)
    return name if name in labels.classes(7) else None


def _by_folder(root: pathlib.Path, problems: Problems) -> tuple[list[Picture], str]:
    pictures = []
    with os.scandir(root) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__")))
    for name in folders:
        files = {n: p for n, p in files_below(undoubled(root / name)).items() if is_picture(n)}
        if canonical(name) is not None:
            pictures += [Picture(path, f"{name}/{n}", name) for n, path in sorted(files.items())]
        elif files:
            problems.mistake(
                root / name, "holds pictures but is not named like one of the seven classes: correct its name"
            )
    return pictures, f"{root}: {len(pictures)} pictures in folders of classes"


def _by_list(path: pathlib.Path, problems: Problems) -> tuple[list[Picture], str]:
    there = _pictures_beside(path.parent)
    pictures, seen = [], set()
    lines = read_text(path, damaged="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where, match = f"{path}:{number}", ROW.match(line.strip())
        image = nfc(match["image"]).replace("\\", "/").removeprefix("./") if match else ""
        word = (match["label"] if match else None) or image.rpartition("/")[0].rpartition("/")[2]
        if not match or not word:
            problems.mistake(where, f"is '{line.strip()[:60]}' where 'a.jpg happy' is expected: correct it")
        elif whole_number(word) is not None:
            problems.mistake(where, f"has the label {word}, and the class of a number is unknown: write names instead")
        elif canonical(word) is None:
            known = ", ".join(labels.classes(7))
            problems.mistake(where, f"has the label {word[:20]}, and they are {known}: correct it")
        elif image in seen:
            problems.mistake(where, f"names {image} a second time: remove one of the rows")
        else:
            seen.add(image)
            file = there.get(image) or there.get(image.rpartition("/")[2])
            if file is None:
                problems.gap(path.parent / image, "is listed and is not there")
            else:
                pictures.append(Picture(file, image, word))
    used = {picture.path for picture in pictures}
    check_unlisted({p: p for p in there.values()}, used, path.name, problems)
    return pictures, f"{path}: {len(pictures)} names"


def _pictures_beside(folder: pathlib.Path) -> dict[str, str]:
    """Returns path relative to `folder` -> path of the pictures in it and in the folders in it.

    A picture in a folder is also found by its bare name, if only one has it.
    """
    found = {name: path for name, path in files_below(folder).items() if is_picture(name)}
    bare: dict[str, list[str]] = {}
    with os.scandir(folder) as entries:
        folders = sorted((e.name, e.path) for e in entries if e.is_dir() and not e.name.startswith((".", "__")))
    for name, inner in folders:
        for file, path in sorted(files_below(undoubled(pathlib.Path(inner))).items()):
            if is_picture(file):
                found[f"{nfc(name)}/{file}"] = path
                bare.setdefault(file, []).append(path)
    return {file: paths[0] for file, paths in bare.items() if len(paths) == 1} | found


def _may_be_list(name: str) -> bool:
    return name.lower().endswith(LISTS) and not name.startswith(".")


def _lists(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the text files in a folder whose first row names a picture."""
    lists = []
    for name, path in sorted(files_below(folder).items()):
        if _may_be_list(name):
            first = next((line.strip() for line in text_lines(path) if line.strip()), "")
            if ROW.match(first):
                lists.append(pathlib.Path(path))
    return lists
