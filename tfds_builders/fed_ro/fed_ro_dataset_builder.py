"""TFDS builder of FED-RO: 400 faces behind real objects, to test on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from tfds_builders.face_crops import CropOptions, check_crop, cropped, face_features
from tfds_builders.fed_ro import layouts
from tfds_builders.listing import Item, Listing
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

COUNTS = {"neutral": 50, "happiness": 59, "surprise": 63, "sadness": 66, "anger": 53, "disgust": 51, "fear": 58}
VARIANTS = {"faces": CropOptions(size=224), "whole": CropOptions(size=224, crop="whole")}


class Builder(PictureBuilder):
    """FED-RO, sorted by class and name, or in the order of its list. See README.md for the files and features."""

    HOMEPAGE = "https://github.com/mysee1989/PG-CNN"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds neural/, happy/, sad/ ... or a list of its pictures"
    VARIANTS = VARIANTS

    def fields(self) -> dict[str, Any]:
        names = {"code": tfds.features.Text(), "name": tfds.features.Text()}
        return {**face_features(self.options, labels.classes(7)), **names}

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
        example, notes = cropped(item.files[0], self.options, self.detector)
        return {**example, "label": item.label, **item.fields}, notes
