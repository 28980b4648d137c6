"""TFDS builder of FED-RO: 400 faces behind real objects, to test on."""

from __future__ import annotations

import pathlib

from etils import epath

from fer_jax import labels
from tfds_builders.layout import folders_with, only, undoubled
from tfds_builders.listing import Listing, folders_in, pictures_in
from tfds_builders.options import CropOptions
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

COUNTS = {"neutral": 50, "happiness": 59, "surprise": 63, "sadness": 66, "anger": 53, "disgust": 51, "fear": 58}


class Builder(PictureBuilder):
    """FED-RO, sorted by class and name. See README.md for the files and features."""

    HOMEPAGE = "https://github.com/mysee1989/PG-CNN"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds neural/, happy/, sad/ ..."
    VARIANTS = {"faces": CropOptions(size=224), "whole": CropOptions(size=224, crop="whole")}
    CHOICES = {"crop": tuple(VARIANTS)}

    def label(self, code: labels.Code) -> int:
        return self.classes.index(emotion_of(str(code)))

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        found = folders_with(manual_dir, lambda name: emotion_of(name) in self.classes)
        root = only(found, manual_dir, "folders of classes (neural/, happy/, sad/ ...)", "FED-RO")
        items = []
        for code, folder in folders_in(root, r"(?!\.|__).*").items():
            files = sorted(pictures_in(undoubled(pathlib.Path(folder))).items())
            if emotion_of(code) in self.classes:
                items += [self.item(path, code, name=f"{code}/{name}") for name, path in files]
            elif files:
                told = "holds pictures but is not named like one of the seven classes: correct its name"
                problems.mistake(folder, told)
        return Listing(
            items={"test": items},
            found=(f"{root}: {len(items)} pictures in folders of classes",),
            expected={"test": COUNTS},
        )


def emotion_of(word: str) -> str:
    """Returns the emotion of FED-RO's name of a class, or of a common one; '' of other words."""
    return labels.emotion_of(labels.CODES["fed_ro"].get(labels.class_name(word).lower(), word)) or ""
