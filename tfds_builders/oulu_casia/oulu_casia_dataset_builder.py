"""TFDS builder of Oulu-CASIA NIR&VIS: 480 sequences for each camera and each light, from neutral to the apex."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from fer_jax import labels
from fer_jax.faces.alignment import crop_box
from fer_jax.faces.pictures import pixels
from tfds_builders.clips import about_frame, all_faces, follow_face, numbered_frames, stored_frames, tallied
from tfds_builders.face_crops import stored
from tfds_builders.layout import folders_with, only
from tfds_builders.listing import Item, Listing, folders_in, numbered
from tfds_builders.options import CropOptions
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

CAMERAS = {"vl": "VL", "ni": "NI"}  # visible light, near infrared
LIGHTS = {"strong": "Strong", "weak": "Weak", "dark": "Dark"}
SOURCES = ("original", "cropped")
PEOPLE = 80  # each shows six expressions once under each light, to both cameras
PERSON = r"P\d{3}"
FRAME = re.compile(r"\d+\.\w+")
EMOTIONS = tuple(map(str, labels.CODES["oulu_casia"]))
PROCESSED = "preprocess"  # how the folder of faces that the authors cropped begins: 'PreProcess Img'
DEPTH = 3  # B_OriginalImg/B_OriginalImg/OriginalImg
RATE = 25.0  # frames a second


@dataclasses.dataclass(frozen=True)
class OuluOptions(CropOptions):
    """
    Attributes:
        camera: 'vl', visible light, or 'ni', near infrared.
        light: 'strong', 'weak' or 'dark'.
        source: 'original', whole frames of the archive, or 'cropped', the faces that its authors cut out, stored as
            they are.
        crop: of original frames: 'faces', found, followed and aligned; or 'none', whole, made square with black edges.
    """

    size: int = 224
    camera: str = "vl"
    light: str = "strong"
    source: str = "original"


class Builder(PictureBuilder):
    """Oulu-CASIA by person and expression. See README.md for the files and features."""

    HOMEPAGE = "https://www.oulu.fi/cmvs"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds VL/ and NI/, or one above it"
    VARIANTS = {
        f"{camera}_{light}" + ("_cropped" if source == "cropped" else ""): OuluOptions(
            camera=camera, light=light, source=source, size=0 if source == "cropped" else 224
        )
        for source in SOURCES
        for camera in CAMERAS
        for light in LIGHTS
    }
    CHOICES = {"camera": CAMERAS, "light": LIGHTS, "source": SOURCES, "crop": ("faces", "none")}
    AS_IS = "cropped"
    CLASSES = labels.classes(7)[1:]  # no sequence is neutral as a whole
    PICTURES_PER_EXAMPLE = 64  # of which each costs a search for faces

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "subject": np.int64}

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        root = self._root(manual_dir)
        people = folders_in(root, PERSON)
        subjects = numbered(people)
        items, holes = [], 0
        for person, folder in people.items():
            there = folders_in(folder)
            for name in sorted(set(there) - set(EMOTIONS)):
                problems.mistake(there[name], f"is not one of {', '.join(EMOTIONS)}: restore its name")
            for emotion in EMOTIONS:
                if emotion not in there:
                    problems.gap(f"{folder}/{emotion}", "is not there: unpack the archive again")
                    continue
                files = numbered_frames(there[emotion], problems)
                for path in files:
                    if not FRAME.fullmatch(os.path.basename(path)):
                        problems.mistake(path, "is not named like a frame, such as 000.jpeg: remove it")
                if not files:
                    problems.gap(there[emotion], "holds no picture: unpack the archive again")
                    continue
                first, last = (int(re.sub(r"\D.*", "", os.path.basename(files[i])) or 0) for i in (0, -1))
                holes += last - first + 1 != len(files)
                name = f"{person}/{emotion}"
                items.append(self.item(files, emotion, title=there[emotion], subject=subjects[person], name=name))
        said = ""
        if self.as_is() and items and (size := _size(items[0].files)):
            said = f"of {size[1]}x{size[0]} pixels, "
            items = [dataclasses.replace(item, crop=size) for item in items]
        return Listing(
            items={"train": items},
            found=(f"{root}: {said}{len(items):,} sequences of {len(people)} people",),
            warnings=(f"{holes} sequences have holes in the numbers of their frames",) if holes else (),
            metadata={"subjects": list(subjects)},
            expected={"train": dict.fromkeys(self.classes, PEOPLE)},
        )

    def _root(self, manual_dir: epath.Path) -> pathlib.Path:
        """Returns the folder of one camera and light, among original frames or cropped faces."""
        options, start = self.options, pathlib.Path(manual_dir)
        camera, light = CAMERAS[options.camera], LIGHTS[options.light]
        found = []
        for folder in folders_with(start, camera.__eq__, DEPTH):
            parts = folder.relative_to(start.parent).parts
            processed = any(part.lower().startswith(PROCESSED) for part in parts)
            if processed == self.as_is() and folders_in(folder / camera / light, PERSON):
                found.append(folder)
        inside, what = (
            ("PreProcess Img", "the cropped faces") if self.as_is() else ("OriginalImg", "the original frames")
        )
        return only(found, start, f"{inside}/{camera}/{light}/P001", f"{what} of Oulu-CASIA") / camera / light

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        if self.as_is():
            return stored_frames(item.files, self.CHANNELS, item.crop)
        notes: list[str] = []
        images = _read(item.files, self.CHANNELS, notes)
        if self.options.crop == "none":
            whole = [crop_box(image, (0, 0, *image.shape[1::-1]), self.options.size).image for _, image in images]
            return all_faces(list(map(stored, whole))), tallied(notes)
        clip, about_faces = follow_face(images, self.options, self.detector)
        return clip, (*tallied(notes), *about_faces)


def _read(files: Sequence[str], channels: int, notes: list[str]) -> Iterator[tuple[float, np.ndarray]]:
    """Yields seconds and pixels of the frames of a sequence, and adds to `notes` what was converted."""
    for number, path in enumerate(files):
        with about_frame(path):
            image, found = pixels(path, channels)
        notes += found
        yield number / RATE, image


def _size(files: Sequence[str]) -> tuple[int, int] | None:
    """Returns (height, width) of the first frame; frames of other sizes are of another edition."""
    for path in files:
        with contextlib.suppress(OSError), Image.open(path) as image:  # it is reported when it is read in full
            return image.height, image.width
    return None
