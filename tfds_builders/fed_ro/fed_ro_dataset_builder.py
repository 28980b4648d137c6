"""TFDS builder of FED-RO: 400 faces behind real objects, to test on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from fer_jax.inference.detection import Detector, Haar
from tfds_builders.face_crops import NO_FACE, CropOptions, check_crop, face_or_square, stored, whole
from tfds_builders.fed_ro import layouts
from tfds_builders.listing import Item, Listing
from tfds_builders.picture_builder import PictureBuilder, named_config, picture_feature
from tfds_builders.pictures import pixels
from tfds_builders.problems import Problems

COUNTS = {"neutral": 50, "happiness": 59, "surprise": 63, "sadness": 66, "anger": 53, "disgust": 51, "fear": 58}
VARIANTS = {"faces": CropOptions(size=224), "whole": CropOptions(size=224, crop="whole")}


class Builder(PictureBuilder):
    """FED-RO, sorted by class and name, or in the order of its list. See README.md for the files and features."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS's own convention)
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds neural/, happy/, sad/ ... or a list of its pictures"
    VARIANTS = VARIANTS
    BUILDER_CONFIGS = [named_config("fed_ro", VARIANTS, name, {}) for name in VARIANTS]  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        options, f = self.options, tfds.features
        return self.dataset_info_from_configs(
            features=f.FeaturesDict(
                {
                    "image": picture_feature((options.size, options.size), 3),
                    "label": f.ClassLabel(names=list(labels.classes(7))),
                    "code": f.Text(),
                    "name": f.Text(),
                    **({"no_face": np.bool_} if options.crop == "faces" else {}),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/mysee1989/PG-CNN",
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

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

    @functools.cached_property
    def detector(self) -> Detector:
        return Haar()

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        photo, notes = pixels(item.files[0], self.CHANNELS)
        options, fields = self.options, {"label": item.label, **item.fields}
        if options.crop == "whole":
            return fields | {"image": stored(whole(photo, options.size))}, notes
        image, found = face_or_square(photo, size=options.size, margin=options.margin, detector=self.detector)
        fields |= {"image": stored(image), "no_face": not found}
        return fields, notes if found else (*notes, NO_FACE)


def make_builder(variant: str = "", data_dir: str | None = None, **options: Any) -> PictureBuilder:
    """Returns the builder of a variant with some of its options replaced (size, margin)."""
    builder = Builder.make("fed_ro", variant, data_dir, options)
    check_crop("fed_ro", builder.options, ("faces", "whole"))
    return builder
