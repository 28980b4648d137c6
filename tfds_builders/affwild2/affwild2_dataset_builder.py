"""TFDS builder of Aff-Wild2's expression task: frames of videos from the internet, eight classes."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from tfds_builders.affwild2.annotations import read_frames
from tfds_builders.frames import RGB, check_frames, stored_frames
from tfds_builders.layout import folder_of, root_of, root_with
from tfds_builders.listing import Item, Listing, files_below
from tfds_builders.picture_builder import Options, PictureBuilder, picture_feature
from tfds_builders.problems import Problems
from tfds_builders.sequences import folders_in, numbered, pictures_in

FACES = "cropped_aligned"
TASK = re.compile(r"EXPR_\w+_Challenge")  # its middle word differs between the challenges
SPLITS = {"train": "Train_Set", "validation": "Validation_Set"}
PERSON = re.compile(r"_(left|right)$")  # of two people in one video
LICENSE = "the license of Aff-Wild2 restricts sharing models trained on it: read it before you publish weights"


@dataclasses.dataclass(frozen=True)
class Affwild2Options(Options):
    """
    Attributes:
        size: side of the stored frames; those of another size are resized.
        every: only each n-th frame of a video, beginning with the first.
    """

    size: int = 112
    every: int = 1


class Builder(PictureBuilder):
    """Labeled frames, sorted by video and number. See README.md for the files and features."""

    HOMEPAGE = "https://ibug.doc.ic.ac.uk/resources/aff-wild2/"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"give the folder that holds {FACES}/ and the annotations, EXPR_..._Challenge/"
    VARIANTS = {"frames": Affwild2Options()}  # noqa: RUF012

    def fields(self) -> dict[str, Any]:
        f, side = tfds.features, self.options.size
        return {
            "image": picture_feature((side, side), RGB),
            "label": f.ClassLabel(names=list(labels.AFFWILD2_CLASSES)),
            "code": f.Text(),
            "name": f.Text(),
            "subject": np.int64,
        }

    def check_options(self, given: Collection[str]) -> None:
        check_frames("affwild2", self.options.every, self.options.size, smallest=1)

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        task = root_with(manual_dir, TASK.fullmatch, "Aff-Wild2", "EXPR_Classification_Challenge")
        task = next(pathlib.Path(path) for name, path in folders_in(task).items() if TASK.fullmatch(name))
        faces = folder_of(root_of(manual_dir, [FACES], "Aff-Wild2"), [FACES], "Aff-Wild2")
        lists = {split: _lists(folder_of(task, [name], "Aff-Wild2")) for split, name in SPLITS.items()}
        there = folders_in(faces)
        subjects = numbered(PERSON.sub("", video) for videos in lists.values() for video in videos)
        items, found = {}, []
        for split, videos in lists.items():
            items[split], labeled = [], 0
            for video, path in videos.items():
                if split == "validation" and video in lists["train"]:
                    problems.mistake(path, f"has the video of {lists['train'][video]}: get the annotations again")
                elif video not in there:
                    problems.gap(faces / video, "has annotations and is not there: unpack its archive again")
                else:
                    codes = read_frames(path, self.options.every, problems)
                    labeled += len(codes)
                    items[split] += _items(video, there[video], codes, subjects[PERSON.sub("", video)])
            lost = labeled - len(items[split])
            found.append(f"{task / SPLITS[split]}: {len(videos):,} videos, {labeled:,} frames with a label")
            found.append(
                f"{faces}: {lost:,} of these frames have no picture, since no face was found, and are not used"
            )
        return Listing(
            items=items,
            found=tuple(found),
            warnings=(LICENSE,),
            metadata={
                "protocol": "the test labels are not public: the published validation split serves as the test split; "
                "the mean of the F1 scores of the eight classes",
                "license": LICENSE,
            },
        )

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        (frame,), notes = stored_frames(item.files, None, self.options.size)
        return {"image": frame, "label": item.label, **item.fields}, notes


def _lists(folder: pathlib.Path) -> Mapping[str, pathlib.Path]:
    """Returns video -> path of its annotations, by name."""
    return {
        name[:-4]: pathlib.Path(path) for name, path in sorted(files_below(folder).items()) if name.endswith(".txt")
    }


def _items(video: str, folder: str, codes: Mapping[int, str], subject: int) -> list[Item]:
    """Returns the labeled frames of a video that have a picture."""
    there = pictures_in(folder)
    items = []
    for number, code in codes.items():
        if (path := there.get(f"{number:05d}.jpg")) is not None:
            label = labels.AFFWILD2_CLASSES.index(labels.canonical("affwild2", code))
            items.append(Item((path,), label, {"code": code, "name": f"{video}/{number:05d}.jpg", "subject": subject}))
    return items
