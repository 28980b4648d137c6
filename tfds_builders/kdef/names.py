"""What the names of KDEF's files say, by the position of their letters, and what is wrong with some of them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re

from fer_jax import labels
from fer_jax.faces.pictures import is_picture
from tfds_builders.listing import files_below
from tfds_builders.problems import Problems

EXAMPLE = "AF01AFS.JPG"
ANGLES = ("FL", "HL", "S", "HR", "FR")  # full and half left profile, straight, half and full right profile
PEOPLE = 35  # of each gender
FOLDER = re.compile(r"^[AB][FM]\d{2}$", re.IGNORECASE)
NAME = re.compile(r"^([AB])([FM])(\d{2})([A-Z]{2})(FL|HL|S|HR|FR)$")  # session, gender, number, expression, angle
AVERAGED = re.compile(r"^[FM](AF|AN|DI|HA|NE|SA|SU)(FL|HL|S|HR|FR)$")  # AKDEF's
# Two names of the archive end after the angle's second letter in Swedish (v is left, h right). What they show is what
# their folders lack otherwise.
MISNAMED = {"AF31V": "AF31SAHL", "AM31H": "AM31SUHR"}
ODD_SIZE = frozenset({"AM05ANFR", "BM10ANFR"})


@dataclasses.dataclass(frozen=True)
class Photo:
    """A picture by its name.

    Attributes:
        path: of the file.
        name: without its ending, as it should be.
        session: 'A' or 'B'.
        person: gender and number, such as 'F01'; the same in both sessions.
        code: of the expression.
        angle: one of `ANGLES`.
    """

    path: str
    name: str
    session: str
    person: str
    code: str
    angle: str


@dataclasses.dataclass
class Found:
    """What the folder holds: photos by name, and lines about what is known to be unusual."""

    photos: dict[str, Photo] = dataclasses.field(default_factory=dict)
    averaged: int = 0
    warnings: list[str] = dataclasses.field(default_factory=list)
    misnamed: list[str] = dataclasses.field(default_factory=list)


def read_names(root: pathlib.Path, problems: Problems) -> Found:
    """Reads the names of all pictures of a folder and of the folders of people in it, sorted by person and name."""
    files = list(files_below(root).items())
    with os.scandir(root) as entries:
        people = [entry.path for entry in entries if FOLDER.match(entry.name) and entry.is_dir()]
    for folder in people:
        files += files_below(folder).items()
    found, wrong = Found(), []
    for name, path in sorted(files):
        if not is_picture(name):
            continue
        stem = os.path.splitext(name)[0].upper()
        if AVERAGED.match(stem):
            found.averaged += 1
        elif stem in MISNAMED:
            wrong.append((stem, path))
        else:
            _take(found, stem, path, problems)
    for stem, path in wrong:
        meant = MISNAMED[stem]
        if meant in found.photos:
            problems.gap(path, f"is a misnamed {meant}, which exists as well: remove it from the folder")
            continue
        found.misnamed.append(os.path.basename(path))
        found.warnings.append(f"{path} is misnamed in the archive and read as {meant}")
        _take(found, meant, path, problems)
    order = sorted(found.photos.values(), key=lambda photo: (photo.person, photo.name))
    return dataclasses.replace(found, photos={photo.name: photo for photo in order})


def _take(found: Found, stem: str, path: str, problems: Problems) -> None:
    match = NAME.match(stem)
    if match is None:
        problems.gap(path, f"is not named like KDEF's pictures ({EXAMPLE}): remove it from the folder")
        return
    session, gender, number, code, angle = match.groups()
    if code not in labels.CODES["kdef"]:
        known = ", ".join(map(str, labels.CODES["kdef"]))
        problems.mistake(path, f"has the expression {code}, and they are {known}: correct its name")
    elif not 1 <= int(number) <= PEOPLE:
        problems.mistake(path, f"is of number {number}, and they are 01 to {PEOPLE}: correct its name")
    elif stem in found.photos:
        problems.mistake(path, f"has the same name as {found.photos[stem].path}: remove one of them")
    else:
        found.photos[stem] = Photo(path, stem, session, gender + number, code, angle)
