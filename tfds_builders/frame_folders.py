"""The base of builders of clips of faces that lie in a folder of frames each, of any size."""

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
    SUPERVISED_KEYS = ("frames", "label")
    PICTURES_PER_EXAMPLE = 32

    def fields(self) -> dict[str, Any]:
        f, side = tfds.features, self.options.size
        return {
            **clip_features(picture_feature((side, side), RGB)),
            "label": f.ClassLabel(names=list(self.CLASSES)),
            "code": f.Text(),
            "name": f.Text(),
        }

    def check_options(self, given: Collection[str]) -> None:
        check_frames(self.name, self.options.every, self.options.size, smallest=1)  # frames differ in size

    def clip(
        self, folder: str | None, place: pathlib.Path, label: int, fields: Mapping[str, Any], problems: Problems
    ) -> list[Clip]:
        """Returns a clip in a list; [], and a gap, if its folder is None (not there, at `place`) or has no frames."""
        files = () if folder is None else numbered_frames(folder, problems)
        if not files:
            told = "is listed and is not there" if folder is None else "has no frames"
            problems.gap(place, f"{told}: unpack its archive again")
            return []
        return [Clip(files[:: self.options.every], label, fields, title=str(place))]

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        frames, notes = stored_frames(item.files, None, self.options.size)
        mask = np.ones(len(frames), bool)  # all frames were cut to a face
        return {"frames": frames, "frame_mask": mask, "label": item.label, **item.fields}, notes
