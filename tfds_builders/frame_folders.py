"""The base of builders of clips of faces that lie in a folder of frames each."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.frames import RGB, check_frames, numbered_frames, stored_frames
from tfds_builders.listing import Item
from tfds_builders.picture_builder import Options, PictureBuilder, picture_feature
from tfds_builders.problems import Problems
from tfds_builders.sequences import Clip, clip_features


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
    """Clips whose frames are the pictures in a folder, sorted by number; a subclass names its classes."""

    CLASSES: ClassVar[Sequence[str]]
    VARIANTS: ClassVar[Mapping[str, FrameOptions]] = {"faces": FrameOptions()}
    FRAME_SIZE: ClassVar[tuple[int, int] | None] = None  # (height, width) of all frames; None if they differ
    SUPERVISED_KEYS = ("frames", "label")
    PICTURES_PER_EXAMPLE = 32

    def fields(self) -> dict[str, Any]:
        f, side = tfds.features, self.options.size
        return {
            **clip_features(picture_feature((side, side) if side else self.FRAME_SIZE, RGB)),
            "label": f.ClassLabel(names=list(self.CLASSES)),
            "code": f.Text(),
            "name": f.Text(),
        }

    def check_options(self, given: Collection[str]) -> None:
        check_frames(self.name, self.options.every, self.options.size, smallest=0 if self.FRAME_SIZE else 1)

    def clip(
        self,
        folder: str | None,
        place: pathlib.Path,
        label: int,
        fields: Mapping[str, Any],
        problems: Problems,
        length: int = 0,
    ) -> list[Clip]:
        """Returns a clip in a list; [] and a gap if its folder is not there or has other than `length` frames.

        Args:
            folder: of the frames, None if it is not there.
            place: where the folder should be.
            label, fields: of the clip.
            problems: for the gap.
            length: number of frames; 0 for any but none.
        """
        files = () if folder is None else numbered_frames(folder, problems)
        if files and len(files) == (length or len(files)):
            return [Clip(files[:: self.options.every], label, fields, title=str(place))]
        told = "is listed and is not there" if folder is None else "has no frames"
        if files:
            told = f"has {len(files)} frames, and this edition {length}"
        problems.gap(place, f"{told}: unpack its archive again")
        return []

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        frames, notes = stored_frames(item.files, self.FRAME_SIZE, self.options.size)
        mask = np.ones(len(frames), bool)  # all frames were cut to a face
        return {"frames": frames, "frame_mask": mask, "label": item.label, **item.fields}, notes
