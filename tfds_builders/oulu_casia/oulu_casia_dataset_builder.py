"""TFDS builder of Oulu-CASIA NIR&VIS: 480 sequences for each camera and each light, from neutral to the apex."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

from fer_jax import labels
from fer_jax.errors import UserError
from fer_jax.faces.crops import crop_box
from fer_jax.faces.pictures import encoded
from tfds_builders.layout import Absent
from tfds_builders.listing import Item, Listing
from tfds_builders.picture_builder import Options, PictureBuilder, picture_feature
from tfds_builders.problems import Problems
from tfds_builders.sequences import (
    Clip,
    archives_below,
    check_choice,
    check_crop,
    clip_features,
    face_notes,
    find_folders,
    folders_in,
    follow_face,
    frame_number,
    numbered,
    pictures_in,
    read_frame,
    refuse_idle,
    tallied,
    whole_frames,
)

NAMES = labels.classes(7)[1:]  # no sequence is neutral as a whole
CAMERAS = {"vl": "VL", "ni": "NI"}  # visible light, near infrared
LIGHTS = {"strong": "Strong", "weak": "Weak", "dark": "Dark"}
SOURCES = ("original", "cropped")
CROPS = ("faces", "none")
PEOPLE = 80  # each shows six expressions once under each light, to both cameras
PERSON = r"P\d{3}"
EMOTIONS = tuple(map(str, labels.CODES["oulu_casia"]))
PROCESSED = "preprocess"  # how the folder of faces that the authors cropped begins: 'PreProcess Img'
RATE = 25.0  # frames a second


@dataclasses.dataclass(frozen=True)
class OuluOptions(Options):
    """
    Attributes:
        camera: 'vl', visible light, or 'ni', near infrared.
        light: 'strong', 'weak' or 'dark'.
        source: 'original', whole frames of the archive, or 'cropped', the faces that its authors cut out, stored as
            they are.
        crop: of original frames: 'faces', found, followed and aligned; or 'none', whole, made square with black edges.
        margin: beyond the template of aligned faces, on each side, as a share of its side.
        yunet: path of the ONNX file of the detector YuNet; '' fetches it.
    """

    size: int = 224
    camera: str = "vl"
    light: str = "strong"
    source: str = "original"
    crop: str = "faces"
    margin: float = 0.0
    yunet: str = ""


VARIANTS = {
    f"{camera}_{light}" + ("" if source == "original" else f"_{source}"): OuluOptions(
        camera=camera, light=light, source=source, size=224 if source == "original" else 0
    )
    for source in SOURCES
    for camera in CAMERAS
    for light in LIGHTS
}


class Builder(PictureBuilder):
    """Oulu-CASIA by person and expression. See README.md for the files and features."""

    HOMEPAGE = "https://www.oulu.fi/cmvs"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds VL/ and NI/, or one above it"
    VARIANTS = VARIANTS
    SUPERVISED_KEYS = None
    PICTURES_PER_EXAMPLE = 64  # of which each costs a search for faces

    def fields(self) -> dict[str, Any]:
        options, f = self.options, tfds.features
        size = (options.size, options.size) if options.source == "original" else None
        return {
            **clip_features(picture_feature(size, self.CHANNELS)),
            "label": f.ClassLabel(names=list(NAMES)),
            "code": f.Text(),
            "subject": np.int64,
            "name": f.Text(),
        }

    def check_options(self, given: Collection[str]) -> None:
        for name, values in {"camera": CAMERAS, "light": LIGHTS, "source": SOURCES, "crop": CROPS}.items():
            check_choice("oulu_casia", name, getattr(self.options, name), values)
        if self.options.source == "original":
            check_crop("oulu_casia", self.options)
        else:
            idle = ("size", "crop", "margin", "yunet")
            refuse_idle("oulu_casia", given, idle, "the cropped faces, which are stored as they are")

    def searches_faces(self) -> bool:
        return self.options.source == "original" and self.options.crop == "faces"

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        root = _root(manual_dir, self.options)
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
                numbers = _frames(there[emotion], problems)
                if not numbers:
                    problems.gap(there[emotion], "holds no picture: unpack the archive again")
                    continue
                holes += max(numbers) - min(numbers) + 1 != len(numbers)
                fields = {"code": emotion, "subject": subjects[person], "name": f"{person}/{emotion}"}
                label = NAMES.index(labels.canonical("oulu_casia", emotion))
                files = tuple(numbers[number] for number in sorted(numbers))
                items.append(Clip(files, label=label, fields=fields, title=there[emotion]))
        crop = None
        if self.options.source == "cropped" and items:
            crop = _size(items[0].files)
            items = [dataclasses.replace(item, crop=crop) for item in items]
        shown = {labels.canonical("oulu_casia", emotion) for emotion in EMOTIONS}
        said = f"of {crop[1]}x{crop[0]} pixels, " if crop else ""
        return Listing(
            items={"train": items},
            found=(f"{root}: {said}{len(items):,} sequences of {len(people)} people",),
            warnings=(f"{holes} sequences have holes in the numbers of their frames",) if holes else (),
            metadata={
                "subjects": list(subjects),
                "protocol": "ten folds by subject, every tenth person in one; mean accuracy over the folds",
            },
            expected={"train": {name: PEOPLE * (name in shown) for name in NAMES}},
        )

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        options = self.options
        notes: list[str] = []
        if options.source == "cropped":
            frames, converted = whole_frames(item.files, self.CHANNELS, item.crop)
            return self._example(item, frames, np.ones(len(frames), bool)), converted
        if options.crop == "none":
            frames = []
            for path in item.files:
                image, found = read_frame(path, self.CHANNELS)
                notes += found
                square = crop_box(image, (0, 0, image.shape[1], image.shape[0]), options.size).image
                frames.append(io.BytesIO(encoded(square, "JPEG")))
            return self._example(item, frames, np.ones(len(frames), bool)), tallied(notes)

        def opened():
            for number, path in enumerate(item.files):
                image, found = read_frame(path, self.CHANNELS)
                notes.extend(found)
                yield number / RATE, image

        clip = follow_face(opened(), options.size, options.margin, self.detector)
        return self._example(item, clip.frames, clip.mask), (*tallied(notes), *face_notes(clip.mask))

    def _example(self, item: Item, frames: list[io.BytesIO], mask: np.ndarray) -> dict[str, Any]:
        return {"frames": frames, "frame_mask": mask, "label": item.label, **item.fields}

    def example_name(self, where: str) -> str:
        match = re.search(rf"({PERSON})[/\\]({'|'.join(EMOTIONS)})", where)
        return f"{match[1]}/{match[2]}" if match else super().example_name(where)


def _root(manual_dir: os.PathLike[str], options: OuluOptions) -> pathlib.Path:
    """Returns the folder of one camera and light, among original frames or cropped faces."""
    start, wanted = pathlib.Path(manual_dir), f"{CAMERAS[options.camera]}/{LIGHTS[options.light]}"
    what = "cropped faces" if options.source == "cropped" else "original frames"
    found = [
        folder
        for folder in find_folders(start, [wanted])
        if _is_processed(folder.relative_to(start.parent)) == (options.source == "cropped")
        and folders_in(folder, PERSON)
    ]
    if len(found) > 1:
        raise UserError(
            f"{manual_dir} holds the {what} of Oulu-CASIA more than once ({found[0]} and {found[1]}): give "
            "a folder that holds one of these as --manual_dir"
        )
    if not found:
        inside = "PreProcess Img" if options.source == "cropped" else "OriginalImg"
        raise Absent(f"{manual_dir} has no {inside}/{wanted}/P001 of Oulu-CASIA{archives_below(manual_dir)}")
    return found[0]


def _is_processed(folder: pathlib.Path) -> bool:
    return any(part.lower().startswith(PROCESSED) for part in folder.parts)


def _frames(folder: str, problems: Problems) -> dict[int, str]:
    """Returns number -> path of the frames of a sequence."""
    frames: dict[int, str] = {}
    for name, path in sorted(pictures_in(folder).items()):
        number = frame_number(name) if re.fullmatch(r"\d+\.\w+", name) else None
        if number is None:
            problems.mistake(path, "is not named like a frame, such as 000.jpeg: remove it")
        elif number in frames:
            problems.mistake(path, f"has the number of {os.path.basename(frames[number])}: remove one of them")
        else:
            frames[number] = path
    return frames


def _size(files: Sequence[str]) -> tuple[int, int] | None:
    """Returns (height, width) of the first frame; frames of other sizes are of another edition."""
    for path in files:
        try:
            with Image.open(path) as image:
                return image.height, image.width
        except OSError:
            continue  # reported when it is read in full
    return None
