"""TFDS builder of FER-2013: 35,887 gray faces of 48x48 pixels in seven classes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from fer_jax.errors import UserError
from fer_jax.faces.pictures import encoded
from tfds_builders.fer2013 import folders, reading
from tfds_builders.layout import packed
from tfds_builders.listing import Item, Listing
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems


class Builder(PictureBuilder):
    """FER-2013 in the order of its CSV. See README.md for the files and features."""

    HOMEPAGE = "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put fer2013.csv into the folder; {reading.WHERE}."
    VARIANTS = {}
    FILE_SIZE = (reading.SIDE, reading.SIDE)
    CHANNELS = 1

    def fields(self) -> dict[str, Any]:
        fields = {**super().fields(), "row": np.int64, "black": np.bool_, "leaked": np.bool_}
        del fields["name"]
        return fields

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        """Reads the CSV, the archive or a folder version; a CSV comes first where several lie there."""
        if (path := reading.find_csv(manual_dir)) is not None:
            return reading.read_csv(path).listing()
        if (folder := folders.find_folder(manual_dir)) is not None:
            return folders.read_folder(folder).listing()
        wanted = f"{', '.join(reading.CSV_NAMES)}, {reading.ARCHIVE} or train/<class>/"
        hint = packed(manual_dir) or f" (also looked in its folder fer2013/): {reading.WHERE}"
        raise UserError(f"{manual_dir} has none of {wanted}{hint}")

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        return {"image": io.BytesIO(encoded(item.crop, "PNG"))}, ()
