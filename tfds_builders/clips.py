"""What builders of clips share: frames by number, stored whole or resized, one face followed, folders of faces.

A frame without a face keeps its place: a black picture whose mask is false. A clip without any face is kept as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from fer_jax.faces.crops import faces_of_clip
from fer_jax.faces.detection import Detector
from fer_jax.faces.pictures import BadPicture
from tfds_builders.face_crops import resized, stored
from tfds_builders.listing import Item, pictures_in
from tfds_builders.options import Options
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

NUMBERS = re.compile(r"[0-9]+")


@dataclasses.dataclass(frozen=True)
class FrameOptions(Options):
    """
    Attributes:
        size: side of the stored frames; those of another size are resized.
        every: only each n-th frame, beginning with the first.
    """

    size: int = 224
    every: int = 1


class FrameFolderBuilder(PictureBuilder, skip_registration=True):  # pyright: ignore
    """Clips whose frames, cut to a face by others, are the pictures in a folder, sorted by number."""

    VARIANTS: Mapping[str, FrameOptions] = {"faces": FrameOptions()}  # pyright: ignore
    PICTURES_PER_EXAMPLE = 32

    def clip(
        self,
        folder: str | None,
        place: pathlib.Path,
        code: int | str,
        problems: Problems,
        *,
        length: int = 0,
        **fields: Any,
    ) -> list[Item]:
        """Returns a clip in a list; [] and a gap if its folder is not there or has other than `length` frames.

        Args:
            folder: of the frames, None if it is not there.
            place: where the folder should be.
            code: of its class.
            problems: for the gap.
            length: number of frames; 0 for any but none.
            fields: further features of the clip.
        """
        files = () if folder is None else numbered_frames(folder, problems)
        if files and len(files) == (length or len(files)):
            return [self.item(files[:: self.options.every], code, title=str(place), **fields)]
        told = "is listed and is not there" if folder is None else "has no frames"
        if files:
            told = f"has {len(files)} frames, and this edition {length}"
        problems.gap(place, f"{told}: unpack its archive again")
        return []

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        return stored_frames(item.files, self.CHANNELS, self.FILE_SIZE, self.options.size)


def numbered_frames(folder: pathlib.Path | str, problems: Problems) -> tuple[str, ...]:
    """Returns the paths of the pictures in a folder, sorted by the numbers in their names: 2.jpg before 10.jpg.

    If a name has several numbers, the first is compared first: 1_10.jpg before 2_3.jpg. () if the folder is empty or
    does not exist.
    """
    by_number: dict[tuple[int, ...], str] = {}
    for name, path in sorted(pictures_in(folder).items()):
        number = tuple(int(digits) for digits in NUMBERS.findall(os.path.splitext(name)[0]))
        if not number:
            problems.mistake(path, "has no number in its name, and frames are sorted by number: restore its name")
        elif number in by_number:
            other = os.path.basename(by_number[number])
            problems.mistake(path, f"has the number of {other} beside it: remove one of them")
        else:
            by_number[number] = path
    return tuple(by_number[number] for number in sorted(by_number))


def stored_frames(
    files: Sequence[str], channels: int, edition: tuple[int, int] | None, size: int = 0
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns `frames` and `frame_mask` of a clip whose frames are faces, and what was converted; see `resized`."""
    frames, notes = [], []
    for path in files:
        with about_frame(path):
            file, converted = resized(path, channels, edition, size)
        frames.append(file)
        notes += converted
    return all_faces(frames), tallied(notes)


def all_faces(frames: Sequence[io.BytesIO]) -> dict[str, Any]:
    """Returns `frames` and `frame_mask` of a clip that shows a face in every frame."""
    return {"frames": frames, "frame_mask": np.ones(len(frames), bool)}


def follow_face(
    frames: Iterable[tuple[float, np.ndarray]], options: Any, detector: Detector | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Follows one face through (seconds, image); returns its crops, and a note on frames without a face.

    Args:
        frames: of the clip.
        options: with the `size` and `margin` of the crops; see `faces_of_clip`.
        detector: of faces.

    Returns:
        T `frames` and `frame_mask` bool [T]; and the notes.
    """
    assert detector is not None  # `searches_faces` says so
    followed = faces_of_clip(frames, detector, options.size, options.margin)
    made = [(stored(crop), found) for _, crop, found in followed]  # encoded one by one: a clip may be long
    if not made:
        raise BadPicture("holds no frame: copy it again")
    crops, mask = zip(*made, strict=True)
    lost = mask.count(False)
    note = "no face found" + (f" in {lost} of {len(mask)} frames" if lost < len(mask) else "")
    return {"frames": list(crops), "frame_mask": np.array(mask)}, (note,) if lost else ()


@contextlib.contextmanager
def about_frame(path: str) -> Iterator[None]:
    """Adds the name of a frame to what is wrong with it."""
    try:
        yield
    except (BadPicture, UserError) as error:
        raise BadPicture(f"frame {os.path.basename(path)} {error}") from error


@contextlib.contextmanager
def about_video(path: str) -> Iterator[None]:
    """Makes `BadPicture` of what is wrong with a video, without its path, which is added later."""
    try:
        yield
    except UserError as error:
        raise BadPicture(str(error).removeprefix(path).lstrip(": ")) from error


def tallied(notes: Iterable[str]) -> tuple[str, ...]:
    """Returns every note once, with its number of frames."""
    return tuple(f"{count} {'frames' if count > 1 else 'frame'} {note}" for note, count in Counter(notes).items())
