"""TFDS builder of MAFW: clips of faces from films, series and short videos, eleven expressions, five official folds."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
from etils import epath

from fer_jax import labels
from tfds_builders.frame_folders import FrameFolderBuilder
from tfds_builders.label_lists import check_fold_sizes, join_folds, read_labels
from tfds_builders.layout import folder_of, root_of
from tfds_builders.listing import ALL, Listing
from tfds_builders.problems import Problems
from tfds_builders.sequences import folders_in

SPLIT = "train"
LISTS = tuple(f"{folder}single/no_caption" for folder in ("split/", "Train & Test Set/", ""))
FACES = ("data/faces", "faces")
CODES = tuple(map(str, labels.CODES["mafw"]))  # the words in the lists
NAME = re.compile(r"\d+\.mp4")
FOLD_SIZES = {"set_1": 1839, "set_2": 1837, "set_3": 1833, "set_4": 1832, "set_5": 1831}  # of the test sets
SHORT_SIZES = {"set_1": 1838, "set_2": 1836, "set_3": 1832, "set_4": 1831, "set_5": 1831}  # as public loaders count


class Builder(FrameFolderBuilder):
    """MAFW's clips with a single expression, by number. See README.md for the files and features."""

    HOMEPAGE = "https://mafw-database.github.io/MAFW/"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"give the folder that holds {FACES[0]}/ and {LISTS[0]}/"
    CLASSES = labels.MAFW_CLASSES

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "fold": np.int64}

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        lists = folder_of(root_of(manual_dir, LISTS, "MAFW"), LISTS, "MAFW")
        faces = folder_of(root_of(manual_dir, FACES, "MAFW"), FACES, "MAFW")
        tests = _read(lists, "test", problems)
        short = [len(rows) for _, rows in tests] == list(SHORT_SIZES.values())
        sizes = SHORT_SIZES if short else FOLD_SIZES
        # The training sets of short lists have clips that are in no test set: they are not compared.
        compared = not short and any(lists.glob("set_*/train.txt"))
        clips = join_folds(tests, _read(lists, "train", problems) if compared else (), problems)
        there = folders_in(faces, r"\d+")
        items = []
        for name, clip in clips.items():
            number = name.partition(".")[0]
            label = self.CLASSES.index(labels.canonical("mafw", clip.label))
            fields = {"code": clip.label, "name": number, "fold": clip.fold}
            items += self.clip(there.get(number), faces / number, label, fields, problems)
        left = len(there.keys() - {name.partition(".")[0] for name in clips})
        return Listing(
            items={SPLIT: items} if items else {},
            found=(
                f"{lists}: {len(clips):,} clips in {len(sizes)} test sets",
                f"{faces}: {len(there):,} clips, {left:,} of them without a single expression and not used",
            ),
            warnings=check_fold_sizes(lists, clips, sizes, self.allow_counts, problems),
            metadata={
                "protocol": "five official folds: each clip is tested once, by the model of the other four; the mean "
                "over the folds of accuracy (WAR) and of mean recall (UAR)"
            },
            expected={SPLIT: {ALL: sum(sizes.values())}},
        )


def _read(lists: pathlib.Path, part: str, problems: Problems) -> list[tuple[pathlib.Path, dict[str, str]]]:
    """Returns the path and the rows of the list of each fold."""
    paths = [lists / name / f"{part}.txt" for name in FOLD_SIZES]
    return [(path, read_labels(path, NAME, CODES, "00025.mp4 happiness", problems)) for path in paths]
