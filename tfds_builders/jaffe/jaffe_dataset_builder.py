"""TFDS builder of JAFFE: ten women, seven posed expressions, gray."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from fer_jax.faces.pictures import copied, is_picture, pixels
from tfds_builders.face_crops import NO_FACE, CropOptions, check_crop, face_or_square, stored
from tfds_builders.layout import root_with
from tfds_builders.listing import Item, Listing, files_below
from tfds_builders.picture_builder import PictureBuilder, picture_feature
from tfds_builders.problems import Problems

NAME = re.compile(r"^([A-Z]{2})\.([A-Z]{2})(\d)\.(\d+)\.tiff?$", re.IGNORECASE)  # person, expression, take, number
EXAMPLE = "KA.AN1.39.tiff"
SIZE = (256, 256)
SUBJECTS = ("KA", "KL", "KM", "KR", "MK", "NA", "NM", "TM", "UY", "YM")
COUNTS = {"AN": 30, "DI": 29, "FE": 32, "HA": 31, "NE": 30, "SA": 31, "SU": 30}
VARIANTS = {"whole": CropOptions(crop="whole"), "faces": CropOptions(size=112)}


class Builder(PictureBuilder):
    """JAFFE, sorted by name. See README.md for the files and features."""

    HOMEPAGE = "https://zenodo.org/records/3451524"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"give the folder of jaffedbase.zip, unpacked, with {EXAMPLE} and 212 more"
    VARIANTS = VARIANTS
    CHANNELS = 1

    def fields(self) -> dict[str, Any]:
        options, f = self.options, tfds.features
        faces = options.crop == "faces"
        return {
            "image": picture_feature((options.size, options.size) if faces else SIZE, 1),
            "label": f.ClassLabel(names=list(labels.classes(7))),
            "code": f.Text(),
            "subject": np.int64,
            "name": f.Text(),
            **({"no_face": np.bool_} if faces else {}),
        }

    def check_options(self, given: Collection[str]) -> None:
        check_crop("jaffe", self.options, ("whole", "faces"), as_is=("whole",))

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        root = root_with(manual_dir, NAME.match, "JAFFE", EXAMPLE)
        named = []
        for name, path in sorted(files_below(root).items()):
            match = NAME.match(name)
            if match is None:
                if is_picture(name):
                    problems.gap(path, f"is not named like JAFFE's pictures ({EXAMPLE}): remove it from the folder")
                continue
            person, code = match[1].upper(), match[2].upper()
            if code not in labels.CODES["jaffe"]:
                problems.mistake(path, f"has the label {code}, and they are {', '.join(COUNTS)}: correct its name")
            elif person not in SUBJECTS:
                problems.mistake(path, f"is of {person}, and people are {', '.join(SUBJECTS)}: correct its name")
            else:
                named.append((person, code, name, path))
        people = sorted({person for person, *_ in named})
        items = [
            Item(
                (path,),
                label=labels.index("jaffe", code, 7),
                fields={"code": code, "subject": people.index(person), "name": name},
            )
            for person, code, name, path in named
        ]
        counts = Counter({labels.canonical("jaffe", code): n for code, n in COUNTS.items()})
        return Listing(
            items={"train": items},
            found=(f"{root}: {len(items)} pictures of {len(people)} people",),
            metadata={
                "protocol": "no official split; leave one person out by subject, in ten folds, and average",
                "subjects": people,
            },
            expected={"train": {name: counts[name] for name in labels.classes(7)}},
        )

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        if self.options.crop == "whole":
            return super().encode(item)
        copied(item.files[0], self.CHANNELS, SIZE)  # refuses what is no picture of JAFFE
        photo, notes = pixels(item.files[0], self.CHANNELS)
        size, margin = self.options.size, self.options.margin
        image, found = face_or_square(photo, size=size, margin=margin, detector=self.detector)
        fields = {"image": stored(image), "label": item.label, "no_face": not found, **item.fields}
        return fields, notes if found else (*notes, NO_FACE)
