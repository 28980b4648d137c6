"""TFDS builder of DFEW: clips from movies, seven expressions, five official folds."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from tfds_builders.clips import FrameFolderBuilder, FrameOptions
from tfds_builders.dfew.annotation import CODES, NO_VOTES, agree, read_votes
from tfds_builders.label_lists import Labeled, check_fold_sizes, join_folds, read_labels
from tfds_builders.layout import find, packed, place_of, root_of
from tfds_builders.listing import Listing, folders_in
from tfds_builders.problems import Problems

LISTS = "EmoLabel_DataSplit"
# As in the archives, and as users name them.
MARKS = ("(single-labeled)", "(single_labeled)", "_single-labeled", "_single_labeled")
ROW = re.compile(r"0*(\d+),\s*(\S+)")
ANNOTATION = "Annotation/annotation.xlsx"
EDITIONS = {"clip_224x224_16f": 16, "clip_224x224": 0}  # folder -> frames of each clip; 0: of any number
COUNTS = (2445, 1894, 2669, 2173, 1469, 145, 902)  # by code
FOLD_SIZES = (2341, 2341, 2340, 2339, 2336)  # of the test sets


@dataclasses.dataclass(frozen=True)
class DfewOptions(FrameOptions):
    """
    Attributes:
        edition: one of `EDITIONS`, the folder of the aligned faces.
    """

    size: int = 0  # frames as they are
    edition: str = "clip_224x224_16f"


class Builder(FrameFolderBuilder):
    """DFEW's clips with a single label, by number. See README.md for the files and features."""

    HOMEPAGE = "https://dfew-dataset.github.io"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds Clip/ and EmoLabel_DataSplit/"
    VARIANTS = {edition: DfewOptions(edition=edition) for edition in EDITIONS}
    CHOICES = {"edition": EDITIONS}
    FILE_SIZE = (224, 224)
    PICTURES_PER_EXAMPLE = 16

    def fields(self) -> dict[str, Any]:
        votes = tfds.features.Tensor(shape=NO_VOTES.shape, dtype=np.int64)
        return {**super().fields(), "fold": np.int64, "votes": votes}

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        edition = self.options.edition
        root = root_of(manual_dir, [LISTS], "DFEW")
        clips_folder = find(manual_dir, [f"Clip/{edition}", edition], "DFEW")
        lists = place_of(root, [LISTS], "DFEW")
        parts = [part for part in ("test", "train") if part == "test" or any(lists.glob("train*"))]
        tests, *trains = [_read(lists, part, problems) for part in parts]
        clips = join_folds(tests, trains[0] if trains else {}, problems)
        votes, about_votes = _votes(root / ANNOTATION, clips, problems)
        there = folders_in(clips_folder, "[0-9]+")
        items = []
        for name, clip in clips.items():
            fields = {"name": name, "fold": clip.fold, "votes": votes.get(name, NO_VOTES)}
            place, length = clips_folder / name, EDITIONS[edition]
            items += self.clip(there.get(name), place, int(clip.label), problems, length=length, **fields)
        left = len(there.keys() - clips)
        return Listing(
            items={"train": items},
            found=(
                f"{lists}: {len(clips):,} clips in {len(tests)} test sets",
                f"{clips_folder}: {len(there):,} clips, {left:,} of them without a single label and not used",
                *about_votes,
            ),
            warnings=check_fold_sizes(lists, clips, FOLD_SIZES, self.allow_counts, problems),
            expected=self.published({"train": COUNTS}),
        )


def _read(lists: pathlib.Path, part: str, problems: Problems) -> dict[pathlib.Path, dict[str, str]]:
    """Returns path -> clip, such as '01600' -> code of the list of each fold."""
    folder = place_of(lists, [part + mark for mark in MARKS], "DFEW")
    rows = {}
    for number in range(1, 6):
        path = folder / f"set_{number}.csv"
        codes = read_labels(path, ROW, CODES, "1600,3", problems, header="video_name,label")
        rows[path] = {name.zfill(5): code for name, code in codes.items()}
    return rows


def _votes(
    path: pathlib.Path, clips: Mapping[str, Labeled], problems: Problems
) -> tuple[Mapping[str, np.ndarray], tuple[str, ...]]:
    """Returns the votes on the clips, and a line on them."""
    if not path.is_file():
        return {}, (f"no {path}{packed(path.parent)}; without it there are no votes",)
    votes = read_votes(path, problems)
    if not agree(votes, {name: int(clip.label) for name, clip in clips.items()}):
        problems.mistake(
            path, "has most votes for other emotions than the labels of the lists: get it again, or remove it"
        )
    return votes, (f"{path}: votes on {len(votes.keys() & clips):,} clips",)
