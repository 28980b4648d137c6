"""What builders of clips share: names of clips, frames stored whole or as crops of one face, folders of frames.

A frame without a face keeps its place: a black picture whose mask is false. A clip without any face is kept as well.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import pathlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from fer_jax.errors import UserError, nearest
from fer_jax.faces.crops import Detector, faces_of_clip
from fer_jax.faces.pictures import LARGEST_SIDE, BadPicture, copied, encoded, is_picture, pixels
from tfds_builders.layout import ARCHIVES
from tfds_builders.listing import Item

NUMBER = re.compile(r"(\d+)\.[^.]+$")  # of a frame, at the end of its name
NUMBERED = re.compile(r"[A-Z]?\d+")  # folders of single people, sessions and sequences


@dataclasses.dataclass(frozen=True)
class Clip(Item):
    """An example of many frames.

    Attributes:
        title: its name in messages, such as its folder; by default its first frame.
    """

    title: str = ""

    @property
    def name(self) -> str:
        return self.title or super().name


class Followed(NamedTuple):
    """T crops of the face that is followed through a clip.

    Attributes:
        frames: encoded pictures.
        mask: bool [T], whether the face was found.
        time: float32 [T], seconds.
    """

    frames: list[io.BytesIO]
    mask: np.ndarray
    time: np.ndarray


def clip_features(picture: tfds.features.Image) -> dict[str, Any]:
    """The features of a clip's frames, of any number."""
    return {
        "frames": tfds.features.Sequence(picture),
        "frame_mask": tfds.features.Tensor(shape=(None,), dtype=np.bool_),
    }


def read_frame(path: str, channels: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reads a frame, uint8 [H, W, channels], and what was converted; as `pictures.pixels`, naming the frame."""
    try:
        return pixels(path, channels)
    except BadPicture as error:
        raise BadPicture(f"frame {os.path.basename(path)} {error}") from error


def whole_frames(
    files: Sequence[str], channels: int, size: tuple[int, int] | None
) -> tuple[list[io.BytesIO], tuple[str, ...]]:
    """Returns the frames as they are stored whole, each of `size` (height, width) or any, and what was converted."""
    frames, notes = [], []
    for path in files:
        try:
            stored = copied(path, channels, size)
        except BadPicture as error:
            raise BadPicture(f"frame {os.path.basename(path)} {error}") from error
        frames.append(stored.file())
        notes += stored.notes
    return frames, tallied(notes)


def follow_face(
    frames: Iterable[tuple[float, np.ndarray]], size: int, margin: float, detector: Detector, form: str = "JPEG"
) -> Followed:
    """Follows one face through (seconds, image), with crops of `size`; see `faces_of_clip`."""
    crops, masks, times = [], [], []
    for part in faces_of_clip(frames, size=size, margin=margin, detector=detector):
        crops += [io.BytesIO(encoded(image, form)) for image in part.image]
        masks.append(part.mask)
        times.append(part.time)
    if not crops:
        raise BadPicture("holds no frame: copy it again")
    return Followed(crops, np.concatenate(masks), np.concatenate(times).astype(np.float32))


def face_notes(mask: np.ndarray) -> tuple[str, ...]:
    """Returns a note on the number of frames without a face."""
    lost = int((~mask).sum())
    if not lost:
        return ()
    return ("no face found",) if lost == len(mask) else (f"no face found in {lost} of {len(mask)} frames",)


def tallied(notes: Iterable[str]) -> tuple[str, ...]:
    """Returns every note once, with its number of frames."""
    return tuple(f"{count} {'frames' if count > 1 else 'frame'} {note}" for note, count in Counter(notes).items())


def frame_number(name: str) -> int | None:
    """Returns the number at the end of a frame's name, None if it has none."""
    match = NUMBER.search(name)
    return int(match[1]) if match else None


def pictures_in(folder: pathlib.Path | str) -> dict[str, str]:
    """Returns name -> path of the pictures in a folder, which is listed once."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.path for entry in entries if is_picture(entry.name) and entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def folders_in(folder: pathlib.Path | str, pattern: str = r"[^.].*") -> dict[str, str]:
    """Returns name -> path of the folders in a folder whose name matches, sorted."""
    try:
        with os.scandir(folder) as entries:
            found = {
                entry.name: entry.path for entry in entries if re.fullmatch(pattern, entry.name) and entry.is_dir()
            }
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return dict(sorted(found.items()))


def find_folders(start: os.PathLike[str] | str, wanted: Sequence[str], depth: int = 3) -> list[pathlib.Path]:
    """Returns the folders that end in one of `wanted` ('Emotion', 'VL/Strong'), at `start` or up to `depth` below it.

    Folders of single people are not searched. If one is inside another, such as a folder that unpacking doubled, the
    inner one is returned.
    """
    found: dict[pathlib.Path, None] = {}
    start = pathlib.Path(start)
    for name in wanted:  # `start` may be such a folder itself
        parts = pathlib.PurePath(name).parts
        if start.parts[-len(parts) :] == parts:
            found[start] = None
    for folder in _walk(start, depth):
        for name in wanted:
            if (folder / name).is_dir():
                found[folder / name] = None
    return [one for one in found if not any(one in other.parents for other in found)]


def archives_below(start: os.PathLike[str] | str, depth: int = 1) -> str:
    """Returns a hint on archives that may have to be unpacked, '' if there are none."""
    names = [
        entry.name for folder in _walk(pathlib.Path(start), depth) for entry in _entries(folder) if entry.is_file()
    ]
    packed = sorted(name for name in names if name.lower().endswith(ARCHIVES))
    more = f" and {len(packed) - 1} more" if len(packed) > 1 else ""
    return f": unpack {packed[0]}{more} first" if packed else ""


def check_choice(dataset: str, option: str, value: str, allowed: Iterable[str]) -> None:
    """Raises unless an option's value is one of `allowed`."""
    allowed = list(allowed)
    if value not in allowed:
        raise UserError(f"{dataset}: option {option}='{value}' is not one of its values: {nearest(value, allowed)}")


def check_crop(dataset: str, options: Any) -> None:
    """Raises unless the size and margin of crops are valid."""
    if not 1 <= options.size <= LARGEST_SIDE:
        raise UserError(f"{dataset}: option size={options.size} must be from 1 to {LARGEST_SIDE} pixels, such as 224")
    if not (math.isfinite(options.margin) and -0.4 <= options.margin <= 2):
        raise UserError(f"{dataset}: option margin={options.margin} must be a share of the face from -0.4 to 2")


def refuse_idle(dataset: str, given: Collection[str], names: Sequence[str], what: str) -> None:
    """Raises for options that do not apply to `what` is stored."""
    if idle := [name for name in names if name in given]:
        raise UserError(f"{dataset}: option {idle[0]} does not apply to {what}: leave it out")


def numbered(subjects: Iterable[str]) -> Mapping[str, int]:
    """Returns id -> number from 0, by sorted id."""
    return {subject: number for number, subject in enumerate(sorted(set(subjects)))}


def _walk(folder: pathlib.Path, depth: int) -> Iterator[pathlib.Path]:
    yield folder
    if depth:
        for entry in _entries(folder):
            if not NUMBERED.fullmatch(entry.name) and entry.is_dir():
                yield from _walk(pathlib.Path(entry.path), depth - 1)


def _entries(folder: pathlib.Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith((".", "__MACOSX"))), key=lambda e: e.name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
