"""TFDS builder of JAFFE: ten women, seven posed expressions, gray."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from etils import epath

from fer_jax import labels
from fer_jax.faces.pictures import is_picture
from tfds_builders.layout import folders_with, only
from tfds_builders.listing import Listing, files_below, numbered
from tfds_builders.options import CropOptions
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

NAME = re.compile(r"^([A-Z]{2})\.([A-Z]{2})(\d)\.(\d+)\.tiff?$", re.IGNORECASE)  # person, expression, take, number
EXAMPLE = "KA.AN1.39.tiff"
SUBJECTS = ("KA", "KL", "KM", "KR", "MK", "NA", "NM", "TM", "UY", "YM")
COUNTS = {"AN": 30, "DI": 29, "FE": 32, "HA": 31, "NE": 30, "SA": 31, "SU": 30}


class Builder(PictureBuilder):
    """JAFFE, sorted by name. See README.md for the files and features."""

    HOMEPAGE = "https://zenodo.org/records/3451524"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"give the folder of jaffedbase.zip, unpacked, with {EXAMPLE} and 212 more"
    VARIANTS = {"whole": CropOptions(crop="whole"), "faces": CropOptions(size=112)}
    CHOICES = {"crop": ("whole", "faces")}
    FILE_SIZE = (256, 256)
    AS_IS = "whole"
    CHANNELS = 1

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "subject": np.int64}

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        root = only(folders_with(manual_dir, NAME.match), manual_dir, EXAMPLE, "JAFFE")
        named = []
        for name, path in sorted(files_below(root, is_picture).items()):
            match = NAME.match(name)
            person, code = (match[1].upper(), match[2].upper()) if match else ("", "")
            if match is None:
                problems.gap(path, f"is not named like JAFFE's pictures ({EXAMPLE}): remove it from the folder")
            elif code not in labels.CODES["jaffe"]:
                problems.mistake(path, f"has the label {code}, and they are {', '.join(COUNTS)}: correct its name")
            elif person not in SUBJECTS:
                problems.mistake(path, f"is of {person}, and people are {', '.join(SUBJECTS)}: correct its name")
            else:
                named.append((person, code, name, path))
        people = numbered(person for person, *_ in named)
        items = [self.item(path, code, subject=people[who], name=name) for who, code, name, path in named]
        return Listing(
            items={"train": items},
            found=(f"{root}: {len(items)} pictures of {len(people)} people",),
            metadata={"subjects": list(people)},
            expected=self.published({"train": COUNTS.values()}, COUNTS),
        )
