"""TFDS builder of KDEF: seventy people, seven posed expressions from five angles, in two sessions."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image, ImageOps

from fer_jax import labels
from fer_jax.errors import UserError, nearest
from fer_jax.faces.pictures import is_picture, pixels
from tfds_builders.face_crops import stored
from tfds_builders.layout import folders_with, only
from tfds_builders.listing import Item, Listing, files_below, folders_in, numbered
from tfds_builders.options import CropOptions, OptionsConfig
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

EXAMPLE = "AF01AFS.JPG"
ANGLES = ("FL", "HL", "S", "HR", "FR")  # full and half left profile, straight, half and full right profile
PEOPLE = 35  # of each gender
SIZE = (762, 562)
EACH = 140  # pictures of an expression from one angle: 70 people, two sessions
NAME = re.compile(r"([AB])([FM])(\d{2})([A-Z]{2})(FL|HL|S|HR|FR)")  # session, gender, number, expression, angle
AVERAGED = re.compile(r"[FM](AF|AN|DI|HA|NE|SA|SU)(FL|HL|S|HR|FR)")  # AKDEF's
# Two names of the archive end after the angle's second letter in Swedish (v is left, h right). What they show is what
# their folders lack otherwise.
MISNAMED = {"AF31V": "AF31SAHL", "AM31H": "AM31SUHR"}
ODD_SIZE = frozenset({"AM05ANFR", "BM10ANFR"})
DARK = "is nearly black"
DARKEST = 16  # pictures of a lower mean gray are noted


@dataclasses.dataclass(frozen=True)
class KdefOptions(CropOptions):
    """
    Attributes:
        angles: of `ANGLES`, joined by '_'.
    """

    size: int = 224
    angles: str = "S"


class Builder(PictureBuilder):
    """KDEF, sorted by person and name. See README.md for the files and features."""

    HOMEPAGE = "https://www.kdef.se"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"give the folder KDEF, with AF01/{EXAMPLE} and 4,899 more"
    VARIANTS = {"faces": KdefOptions(), "whole": KdefOptions(crop="whole", size=0)}
    CHOICES = {"crop": ("faces", "whole")}
    FILE_SIZE = SIZE
    AS_IS = "whole"

    @classmethod
    def named_config(cls, name: str, changes: Mapping[str, Any]) -> OptionsConfig:
        if isinstance(changes.get("angles"), str):
            changes = {**changes, "angles": _angles(changes["angles"])}
        return super().named_config(name, changes)

    def fields(self) -> dict[str, Any]:
        word = tfds.features.Text()
        return {**super().fields(), "subject": np.int64, "angle": word, "session": word, "dark": np.bool_}

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        # The pictures lie in folders of people; some copies have them all in one folder.
        flat = any(NAME.match(name.upper()) for name in files_below(manual_dir))
        inside = re.compile(r"[AB][FM]\d{2}", re.IGNORECASE)
        root = only(
            [pathlib.Path(manual_dir)] if flat else folders_with(manual_dir, inside.fullmatch),
            manual_dir,
            "AF01",
            "KDEF",
        )
        files = [*files_below(root, is_picture).items()]
        for folder in folders_in(root, f"(?i:{inside.pattern})").values():
            files += files_below(folder, is_picture).items()
        photos: dict[str, tuple[str, re.Match[str]]] = {}
        averaged, warnings = 0, []
        # The misnamed ones come last: the right name may be there as well.
        for name, path in sorted(files, key=lambda file: (_stem(file[0]) in MISNAMED, file)):
            stem = _stem(name)
            if meant := MISNAMED.get(stem):
                if meant in photos:
                    problems.gap(path, f"is a misnamed {meant}, which exists as well: remove it from the folder")
                    continue
                warnings.append(f"{path} is misnamed in the archive and read as {meant}")
            match = NAME.fullmatch(meant or stem)
            if AVERAGED.fullmatch(stem):
                averaged += 1
            elif match is None:
                problems.gap(path, f"is not named like KDEF's pictures ({EXAMPLE}): remove it from the folder")
            elif match[4] not in labels.CODES["kdef"]:
                known = ", ".join(map(str, labels.CODES["kdef"]))
                problems.mistake(path, f"has the expression {match[4]}, and they are {known}: correct its name")
            elif not 1 <= int(match[3]) <= PEOPLE:
                problems.mistake(path, f"is of number {match[3]}, and they are 01 to {PEOPLE}: correct its name")
            elif match[0] in photos:
                problems.mistake(path, f"has the same name as {photos[match[0]][0]}: remove one of them")
            else:
                photos[match[0]] = path, match
        angles = self.options.angles.split("_")
        wanted = sorted((m[2] + m[3], m[0], path, m) for path, m in photos.values() if m[5] in angles)
        people = numbered(person for person, *_ in wanted)
        items = [
            self.item(path, m[4], subject=people[person], angle=m[5], session=m[1], name=name)
            for person, name, path, m in wanted
        ]
        said = f", {averaged} averaged faces of AKDEF beside them left out" if averaged else ""
        return Listing(
            items={"train": items},
            found=(f"{root}: {len(photos):,} pictures, {len(wanted):,} of them of the angles wanted{said}",),
            warnings=tuple(warnings),
            metadata={"subjects": list(people)},
            expected={"train": dict.fromkeys(self.classes, EACH * len(angles))},
        )

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        photo, notes = pixels(item.files[0], self.CHANNELS)
        if self.as_is() and item.fields["name"] in ODD_SIZE and photo.shape[:2] != SIZE:
            fitted = ImageOps.fit(Image.fromarray(photo), (SIZE[1], SIZE[0]), Image.Resampling.BICUBIC)
            fields = {"image": stored(np.asarray(fitted))}
            notes = (*notes, f"resized from {photo.shape[1]}x{photo.shape[0]} pixels")
        else:
            fields, notes = super().encode(item)
        dark = bool(photo.mean() < DARKEST)
        return {**fields, "dark": dark}, (*notes, DARK) if dark else notes


def _stem(name: str) -> str:
    return os.path.splitext(name)[0].upper()


def _angles(text: str) -> str:
    """Returns angles in one order, joined by '_'; the user may give them in any order, with commas, or as 'all'."""
    given = [part.upper() for part in re.split(r"[\s,+_]+", text) if part]
    if given == ["ALL"]:
        given = list(ANGLES)
    for angle in given:
        if angle not in ANGLES:
            raise UserError(f"kdef has no angle '{angle}': {nearest(angle, ANGLES)}")
    if not given:
        raise UserError(f"kdef: no angles are given: name some of {', '.join(ANGLES)}")
    return "_".join(angle for angle in ANGLES if angle in given)
