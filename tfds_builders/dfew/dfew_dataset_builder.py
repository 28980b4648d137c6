"""TFDS builder of DFEW: clips from movies, seven expressions, five official folds."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from tfds_builders.dfew.annotation import agree, read_votes
from tfds_builders.dfew.lists import CODES, SETS, read_folds
from tfds_builders.frame_folders import FrameFolderBuilder, FrameOptions
from tfds_builders.label_lists import Labeled, check_fold_sizes
from tfds_builders.layout import folder_of, packed, root_of
from tfds_builders.listing import Listing, by_class
from tfds_builders.problems import Problems
from tfds_builders.sequences import check_choice, folders_in

SPLIT = "train"
LISTS = "EmoLabel_DataSplit"
ANNOTATION = "Annotation/annotation.xlsx"
EDITIONS = {"clip_224x224_16f": 16, "clip_224x224": 0}  # folder -> frames of each clip; 0: of any number
COUNTS = (2445, 1894, 2669, 2173, 1469, 145, 902)  # by code
FOLD_SIZES = (2341, 2341, 2340, 2339, 2336)  # of the test sets
NO_VOTES = np.zeros(len(labels.FERPLUS_VOTES), np.int64)


@dataclasses.dataclass(frozen=True)
class DfewOptions(FrameOptions):
    """
    Attributes:
        edition: one of `EDITIONS`, the folder of the aligned faces.
    """

    size: int = 0  # frames as they are
    edition: str = "clip_224x224_16f"


VARIANTS = {edition: DfewOptions(edition=edition) for edition in EDITIONS}


class Builder(FrameFolderBuilder):
    """DFEW's clips with a single label, by number. See README.md for the files and features."""

    HOMEPAGE = "https://dfew-dataset.github.io"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds Clip/ and EmoLabel_DataSplit/"
    CLASSES = labels.classes(7)
    VARIANTS = VARIANTS
    FRAME_SIZE = (224, 224)
    PICTURES_PER_EXAMPLE = 16

    def fields(self) -> dict[str, Any]:
        votes = tfds.features.Tensor(shape=NO_VOTES.shape, dtype=np.int64)
        return {**super().fields(), "code": np.int64, "fold": np.int64, "votes": votes}

    def check_options(self, given: Collection[str]) -> None:
        super().check_options(given)
        check_choice("dfew", "edition", self.options.edition, EDITIONS)

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        edition = self.options.edition
        root = root_of(manual_dir, [LISTS], "DFEW")
        places = [f"Clip/{edition}", edition]
        clips_folder = folder_of(root_of(manual_dir, places, "DFEW"), places, "DFEW")
        lists = folder_of(root, [LISTS], "DFEW")
        clips = read_folds(lists, problems)
        published = dict(zip(SETS, FOLD_SIZES, strict=True))
        warnings = check_fold_sizes(lists, clips, published, self.allow_counts, problems)
        votes, about_votes = _votes(root / ANNOTATION, clips, problems)
        there = folders_in(clips_folder, "[0-9]+")
        items = []
        for number, clip in clips.items():
            name = f"{number:05d}"
            label = labels.index("dfew", clip.label, 7)
            fields = {"code": clip.label, "name": name, "fold": clip.fold, "votes": votes.get(number, NO_VOTES)}
            items += self.clip(there.get(name), clips_folder / name, label, fields, problems, EDITIONS[edition])
        left = sum(int(name) not in clips for name in there)
        return Listing(
            items={SPLIT: items} if items else {},
            found=(
                f"{lists}: {len(clips):,} clips in {len(SETS)} test sets",
                f"{clips_folder}: {len(there):,} clips, {left:,} of them without a single label and not used",
                *about_votes,
            ),
            warnings=warnings,
            metadata={
                "protocol": "five official folds: each clip is tested once, by the model of the other four; the mean "
                "over the folds of accuracy (WAR) and of mean recall (UAR)"
            },
            expected={SPLIT: by_class("dfew", CODES, COUNTS, self.CLASSES)},
        )


def _votes(
    path: pathlib.Path, clips: Mapping[int, Labeled[int]], problems: Problems
) -> tuple[Mapping[int, np.ndarray], tuple[str, ...]]:
    """Returns the votes on the clips, and a line on them."""
    if not path.is_file():
        return {}, (f"no {path}{packed(path.parent)}; without it there are no votes",)
    votes = read_votes(path, problems)
    if not agree(votes, {number: clip.label for number, clip in clips.items()}):
        problems.mistake(
            path, "has most votes for other emotions than the labels of the lists: get it again, or remove it"
        )
    return votes, (f"{path}: votes on {sum(number in votes for number in clips):,} clips",)
