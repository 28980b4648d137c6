"""TFDS builder of Aff-Wild2's expression task: frames of videos from the internet, eight classes."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
from etils import epath

from fer_jax import labels
from fer_jax.parsing import read_text, whole_number
from tfds_builders.clips import FrameOptions, numbered
from tfds_builders.layout import find, folders_with, only, place_of
from tfds_builders.listing import Item, Listing, files_below, folders_in, pictures_in
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

FACES = "cropped_aligned"
TASK = re.compile(r"EXPR_\w+_Challenge")  # its middle word differs between the challenges
SPLITS = {"train": "Train_Set", "validation": "Validation_Set"}
PERSON = re.compile(r"_(left|right)$")  # of two people in one video
IGNORED = -1
LICENSE = "the license of Aff-Wild2 restricts sharing models trained on it: read it before you publish weights"


class Builder(PictureBuilder):
    """Labeled frames, sorted by video and number. See README.md for the files and features."""

    HOMEPAGE = "https://ibug.doc.ic.ac.uk/resources/aff-wild2/"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"give the folder that holds {FACES}/ and the annotations, EXPR_..._Challenge/"
    PROTOCOL = (
        "the test labels are not public: the published validation split serves as the test split; the mean of the F1 "
        "scores of the eight classes"
    )
    VARIANTS = {"frames": FrameOptions(size=112)}
    CLASSES = labels.AFFWILD2_CLASSES

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "subject": np.int64}

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        example = "EXPR_Classification_Challenge"
        root = only(folders_with(manual_dir, TASK.fullmatch), manual_dir, example, "Aff-Wild2")
        task = pathlib.Path(next(iter(folders_in(root, TASK.pattern).values())))
        faces = find(manual_dir, [FACES], "Aff-Wild2")
        lists = {
            split: {
                name[:-4]: pathlib.Path(path)
                for name, path in sorted(files_below(place_of(task, [folder], "Aff-Wild2")).items())
                if name.endswith(".txt")
            }
            for split, folder in SPLITS.items()
        }
        there = folders_in(faces)
        subjects = numbered(PERSON.sub("", video) for videos in lists.values() for video in videos)
        items: dict[str, list[Item]] = {split: [] for split in SPLITS}
        found = []
        for split, videos in lists.items():
            labeled = 0
            for video, path in videos.items():
                if split == "validation" and video in lists["train"]:
                    problems.mistake(path, f"has the video of {lists['train'][video]}: get the annotations again")
                elif video not in there:
                    problems.gap(faces / video, "has annotations and is not there: unpack its archive again")
                else:
                    codes, frames = read_frames(path, self.options.every, problems), pictures_in(there[video])
                    labeled += len(codes)
                    items[split] += [
                        self.item(frames[name], code, subject=subjects[PERSON.sub("", video)], name=f"{video}/{name}")
                        for name, code in codes.items()
                        if name in frames
                    ]
            lost = labeled - len(items[split])
            found.append(f"{task / SPLITS[split]}: {len(videos):,} videos, {labeled:,} frames with a label")
            found.append(
                f"{faces}: {lost:,} of these frames have no picture, since no face was found, and are not used"
            )
        return Listing(items=items, found=tuple(found), warnings=(LICENSE,), metadata={"license": LICENSE})


def read_frames(path: pathlib.Path, every: int, problems: Problems) -> dict[str, str]:
    """Returns name of the frame, such as 00001.jpg -> name of its class; frames labeled -1 are left out.

    The first row says which class a number stands for. A blank row between others would shift the frames after it, and
    is a mistake.

    Args:
        path: of the annotations.
        every: only each n-th frame, beginning with the first.
        problems: for unknown classes, and rows without the number of a class.
    """
    header, *rows = read_text(path, damaged="replace").rstrip().split("\n")
    names = [labels.class_name(name) for name in header.split(",")]
    known = labels.CODES["affwild2"]
    if unknown := [name for name in names if name not in known]:
        told = f"has the class '{unknown[0][:40]}' in its first row, and they are {', '.join(map(str, known))}"
        problems.mistake(path, f"{told}: get it again")
        return {}
    frames = {}
    for number, row in enumerate(rows, start=1):
        code = whole_number(row.strip(), IGNORED, len(names) - 1)
        if code is None:
            told = f"has '{row.strip()[:40]}' where a number from -1 to {len(names) - 1} is expected: get it again"
            problems.mistake(f"{path}:{number + 1}", told)
            return {}
        if code != IGNORED and (number - 1) % every == 0:
            frames[f"{number:05d}.jpg"] = names[code]
    return frames
