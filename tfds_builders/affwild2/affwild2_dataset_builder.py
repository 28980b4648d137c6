"""TFDS builder of Aff-Wild2's expression task: frames of videos from the internet, eight classes, some with affect."""

from __future__ import annotations

import math
import pathlib
import re
from typing import Any

import numpy as np
from etils import epath

from fer_jax import labels
from fer_jax.labels import AFFECT
from fer_jax.parsing import numbers, read_text, whole_number
from tfds_builders.clips import FrameOptions
from tfds_builders.layout import find, folders_with, only, place_of
from tfds_builders.listing import Item, Listing, files_below, folders_in, numbered, pictures_in
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

FACES = "cropped_aligned"
TASK = re.compile(r"EXPR_\w+_Challenge")  # its middle word differs between the challenges
AFFECT_TASK = r"VA_\w+_Challenge"
UNKNOWN: dict[str, float] = dict.fromkeys(AFFECT, math.nan)
MOST = 5.0  # a frame without valence and arousal has -5
SPLITS = {"train": "Train_Set", "validation": "Validation_Set"}
PERSON = re.compile(r"_(left|right)$")  # of two people in one video
IGNORED = -1
LICENSE = "the license of Aff-Wild2 restricts sharing models trained on it: read it before you publish weights"


class Builder(PictureBuilder):
    """Labeled frames, sorted by video and number. See README.md for the files and features."""

    HOMEPAGE = "https://ibug.doc.ic.ac.uk/resources/aff-wild2/"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"give the folder that holds {FACES}/ and the annotations, EXPR_..._Challenge/"
    VARIANTS = {"frames": FrameOptions(size=112)}
    CLASSES = labels.AFFWILD2_CLASSES

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "subject": np.int64, **dict.fromkeys(AFFECT, np.float32)}

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        example = "EXPR_Classification_Challenge"
        root = only(folders_with(manual_dir, TASK.fullmatch), manual_dir, example, "Aff-Wild2")
        task = pathlib.Path(next(iter(folders_in(root, TASK.pattern).values())))
        faces = find(manual_dir, [FACES], "Aff-Wild2")
        lists = {split: _lists(place_of(task, [folder], "Aff-Wild2")) for split, folder in SPLITS.items()}
        rated: dict[str, pathlib.Path] = {}  # the splits of that task differ, and are not those that are scored
        for folder in folders_in(root, AFFECT_TASK).values():
            for split in SPLITS.values():
                rated |= _lists(pathlib.Path(folder, split))
        there = folders_in(faces)
        subjects = numbered(PERSON.sub("", video) for videos in lists.values() for video in videos)
        items: dict[str, list[Item]] = {split: [] for split in SPLITS}
        found = []
        for split, videos in lists.items():
            labeled = 0
            for video, path in videos.items():
                frames = pictures_in(there[video]) if video in there else {}
                if split == "validation" and video in lists["train"]:
                    problems.mistake(path, f"has the video of {lists['train'][video]}: get the annotations again")
                elif not frames:
                    told = "has no pictures" if video in there else "is not there"
                    problems.gap(faces / video, f"has annotations and {told}: unpack its archive again")
                else:
                    codes = read_frames(path, self.options.every, problems)
                    labeled += len(codes)
                    affect = read_affect(rated[video], problems) if video in rated else {}
                    subject = subjects[PERSON.sub("", video)]
                    for name, code in codes.items():
                        if name in frames:
                            fields = {"subject": subject, "name": f"{video}/{name}", **affect.get(name, UNKNOWN)}
                            items[split].append(self.item(frames[name], code, **fields))
            both = sum(not math.isnan(item.fields["valence"]) for item in items[split])
            lost = labeled - len(items[split])
            if labeled == lost > 0:
                told = f"labels {labeled:,} frames, none of which has a picture in {faces}: unpack its archives again"
                problems.mistake(task / SPLITS[split], told)
            found.append(f"{task / SPLITS[split]}: {len(videos):,} videos, {labeled:,} frames with a label")
            found.append(
                f"{faces}: {lost:,} of these frames have no picture, since no face was found, and are not used"
            )
            found.append(f"{root}: {both:,} of those used have valence and arousal")
        if others := sorted({*there} - {*lists["train"], *lists["validation"]}):
            told = f"{len(others):,} videos, such as {others[0]}, have no annotations in {task} and are not used"
            found.append(f"{faces}: {told}")
        return Listing(items=items, found=tuple(found), warnings=(LICENSE,))


def _lists(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns video -> file of its annotations; none where there is no such folder."""
    files = sorted(files_below(folder).items())
    return {name[:-4]: pathlib.Path(path) for name, path in files if name.endswith(".txt")}


def read_affect(path: pathlib.Path, problems: Problems) -> dict[str, dict[str, float]]:
    """Returns name of the frame -> its valence and arousal by name; frames without them are left out.

    Args:
        path: of the annotations, whose first row says which number is which.
        problems: for another first row, and rows without two numbers.
    """
    header, *rows = read_text(path, damaged="replace").rstrip().split("\n")
    names = [name.strip() for name in header.split(",")]
    if sorted(names) != sorted(AFFECT):
        told = f"has '{header.strip()[:40]}' in its first row, and it is {','.join(AFFECT)}: get it again"
        problems.mistake(path, told)
        return {}
    frames: dict[str, dict[str, float]] = {}
    for number, row in enumerate(rows, start=1):
        values = numbers(row.strip().split(","), MOST)
        if len(values) != len(names):
            told = f"has '{row.strip()[:40]}' where valence and arousal are expected: get it again"
            problems.mistake(f"{path}:{number + 1}", told)
            return {}
        if max(map(abs, values)) <= 1:
            frames[f"{number:05d}.jpg"] = dict(zip(names, values, strict=True))
    return frames


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
