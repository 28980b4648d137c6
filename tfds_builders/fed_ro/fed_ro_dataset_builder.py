"""TFDS builder of FED-RO: 400 faces behind real objects, to test on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from fer_jax.faces.pictures import pixels
from tfds_builders.face_crops import NO_FACE, CropOptions, check_crop, face_or_square, stored, whole
from tfds_builders.fed_ro import layouts
from tfds_builders.listing import Item, Listing
from tfds_builders.picture_builder import PictureBuilder, picture_feature
from tfds_builders.problems import Problems

COUNTS = {"neutral": 50, "happiness": 59, "surprise": 63, "sadness": 66, "anger": 53, "disgust": 51, "fear": 58}
VARIANTS = {"faces": CropOptions(size=224), "whole": CropOptions(size=224, crop="whole")}


class Builder(PictureBuilder):
    """FED-RO, sorted by class and name, or in the order of its list. See README.md for the files and features."""

    HOMEPAGE = "https://github.com/mysee1989/PG-CNN"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds neural/, happy/, sad/ ... or a list of its pictures"
    VARIANTS = VARIANTS

    def fields(self) -> dict[str, Any]:
        options, f = self.options, tfds.features
        return {
            "image": picture_feature((options.size, options.size), 3),
            "label": f.ClassLabel(names=list(labels.classes(7))),
            "code": f.Text(),
            "name": f.Text(),
            **({"no_face": np.bool_} if options.crop == "faces" else {}),
        }

    def check_options(self, given: Collection[str]) -> None:
        check_crop("fed_ro", self.options, ("faces", "whole"))

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        pictures, found = layouts.read(manual_dir, problems)
        items = []
        for picture in pictures:
            name = layouts.canonical(picture.code)
            assert name is not None  # `read` has refused the others
            fields = {"code": picture.code, "name": picture.name}
            items.append(Item((picture.path,), label=labels.EMOTIONS.index(name), fields=fields))
        return Listing(
            items={"test": items},
            found=(found,),
            metadata={"protocol": "test only; the authors trained on RAF-DB and AffectNet with synthetic occlusion"},
            expected={"test": COUNTS},
        )

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        photo, notes = pixels(item.files[0], self.CHANNELS)
        options, fields = self.options, {"label": item.label, **item.fields}
        if options.crop == "whole":
            return fields | {"image": stored(whole(photo, options.size))}, notes
        image, found = face_or_square(photo, size=options.size, margin=options.margin, detector=self.detector)
        fields |= {"image": stored(image), "no_face": not found}
        return fields, notes if found else (*notes, NO_FACE)
