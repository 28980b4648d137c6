"""TFDS builder of KDEF: seventy people, seven posed expressions from five angles, in two sessions."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image, ImageOps

from fer_jax import labels
from fer_jax.errors import UserError, nearest
from fer_jax.faces.pictures import copied, pixels
from tfds_builders.face_crops import NO_FACE, CropOptions, check_crop, face_or_square, stored
from tfds_builders.kdef.names import ANGLES, EXAMPLE, FOLDER, NAME, ODD_SIZE, Photo, read_names
from tfds_builders.layout import root_with
from tfds_builders.listing import Item, Listing, files_below
from tfds_builders.picture_builder import OptionsConfig, PictureBuilder, picture_feature
from tfds_builders.problems import Problems

SIZE = (762, 562)
EACH = 140  # pictures of an expression from one angle: 70 people, two sessions
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


VARIANTS = {"faces": KdefOptions(), "whole": KdefOptions(crop="whole", size=0)}


class Builder(PictureBuilder):
    """KDEF, sorted by person and name. See README.md for the files and features."""

    HOMEPAGE = "https://www.kdef.se"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"give the folder KDEF, with AF01/{EXAMPLE} and 4,899 more"
    VARIANTS = VARIANTS

    @classmethod
    def named_config(cls, name: str, changes: Mapping[str, Any]) -> OptionsConfig:
        if isinstance(changes.get("angles"), str):
            changes = {**changes, "angles": _angles(changes["angles"])}
        return super().named_config(name, changes)

    def fields(self) -> dict[str, Any]:
        options, f = self.options, tfds.features
        faces = options.crop == "faces"
        return {
            "image": picture_feature((options.size, options.size) if faces else SIZE, 3),
            "label": f.ClassLabel(names=list(labels.classes(7))),
            "code": f.Text(),
            "subject": np.int64,
            "angle": f.Text(),
            "session": f.Text(),
            "name": f.Text(),
            "dark": np.bool_,
            **({"no_face": np.bool_} if faces else {}),
        }

    def check_options(self, given: Collection[str]) -> None:
        check_crop("kdef", self.options, ("faces", "whole"), as_is=("whole",))

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        # The pictures lie in folders of people; some copies have them all in one folder.
        flat = any(NAME.match(name.upper().partition(".")[0]) for name in files_below(manual_dir))
        root = pathlib.Path(manual_dir) if flat else root_with(manual_dir, FOLDER.match, "KDEF", "AF01")
        found = read_names(root, problems)
        wanted = [photo for photo in found.photos.values() if photo.angle in self.options.angles.split("_")]
        people = sorted({photo.person for photo in wanted})
        averaged = f", {found.averaged} averaged faces of AKDEF beside them left out" if found.averaged else ""
        return Listing(
            items={"train": [_item(photo, people.index(photo.person)) for photo in wanted]},
            found=(f"{root}: {len(found.photos):,} pictures, {len(wanted):,} of them of the angles wanted{averaged}",),
            warnings=tuple(found.warnings),
            metadata={
                "protocol": "no official split; folds by subject, over both sessions",
                "subjects": people,
                "misnamed": found.misnamed,
            },
            expected={"train": dict.fromkeys(labels.classes(7), EACH * len(self.options.angles.split("_")))},
        )

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        photo, notes = pixels(item.files[0], self.CHANNELS)
        fields = {"label": item.label, "dark": bool(photo.mean() < DARKEST), **item.fields}
        notes = (*notes, DARK) if fields["dark"] else notes
        options = self.options
        if options.crop == "faces":
            image, found = face_or_square(photo, size=options.size, margin=options.margin, detector=self.detector)
            fields |= {"image": stored(image), "no_face": not found}
            return fields, notes if found else (*notes, NO_FACE)
        if item.fields["name"] in ODD_SIZE and photo.shape[:2] != SIZE:
            fitted = ImageOps.fit(Image.fromarray(photo), (SIZE[1], SIZE[0]), Image.Resampling.BICUBIC)
            note = f"resized from {photo.shape[1]}x{photo.shape[0]} pixels"
            return fields | {"image": stored(np.asarray(fitted))}, (*notes, note)
        return fields | {"image": copied(item.files[0], self.CHANNELS, SIZE).file()}, notes

    def _finish(self, listing: Listing, counts: Mapping[str, Mapping[str, int]]) -> None:
        super()._finish(listing, counts)
        assert self.info.metadata is not None
        dark = [note.removesuffix(f": {DARK}") for note in self.notes() if note.endswith(f": {DARK}")]
        self.info.metadata.update(dark=[path.rpartition("/")[2] for path in dark])


def _item(photo: Photo, subject: int) -> Item:
    fields = {
        "code": photo.code,
        "subject": subject,
        "angle": photo.angle,
        "session": photo.session,
        "name": photo.name,
    }
    return Item((photo.path,), label=labels.index("kdef", photo.code, 7), fields=fields)


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
