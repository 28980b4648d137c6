"""TFDS builder of MAFW: clips of faces from films, series and short videos, eleven expressions, five official folds."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
from etils import epath

from fer_jax import labels
from tfds_builders.clips import FrameFolderBuilder
from tfds_builders.label_lists import check_fold_sizes, join_folds, read_labels
from tfds_builders.layout import find
from tfds_builders.listing import ALL, Listing, folders_in
from tfds_builders.problems import Problems

LISTS = tuple(f"{folder}single/no_caption" for folder in ("split/", "Train & Test Set/", ""))
FACES = ("data/faces", "faces")
CODES = labels.CODES["mafw"]  # the words in the lists
ROW = re.compile(r"(\d+)\.mp4\s+(\S+)")
FOLD_SIZES = (1839, 1837, 1833, 1832, 1831)  # of the test sets
SHORT_SIZES = (1838, 1836, 1832, 1831, 1831)  # as public loaders count


class Builder(FrameFolderBuilder):
    """MAFW's clips with a single expression, by number. See README.md for the files and features."""

    HOMEPAGE = "https://mafw-database.github.io/MAFW/"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"give the folder that holds {FACES[0]}/ and {LISTS[0]}/"
    CLASSES = labels.MAFW_CLASSES

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "fold": np.int64}

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        lists, faces = find(manual_dir, LISTS, "MAFW"), find(manual_dir, FACES, "MAFW")
        tests = _read(lists, "test", problems)
        short = tuple(map(len, tests.values())) == SHORT_SIZES
        sizes = SHORT_SIZES if short else FOLD_SIZES
        # The training sets of short lists have clips that are in no test set: they are not compared.
        compared = not short and any(lists.glob("set_*/train.txt"))
        clips = join_folds(tests, _read(lists, "train", problems) if compared else {}, problems)
        there = folders_in(faces, r"\d+")
        items = []
        for name, clip in clips.items():
            items += self.clip(there.get(name), faces / name, clip.label, problems, name=name, fold=clip.fold)
        left = len(there.keys() - clips)
        return Listing(
            items={"train": items},
            found=(
                f"{lists}: {len(clips):,} clips in {len(sizes)} test sets",
                f"{faces}: {len(there):,} clips, {left:,} of them without a single expression and not used",
            ),
            warnings=check_fold_sizes(lists, clips, sizes, self.allow_counts, problems),
            expected={"train": {ALL: sum(sizes)}},
        )


def _read(lists: pathlib.Path, part: str, problems: Problems) -> dict[pathlib.Path, dict[str, str]]:
    """Returns path -> rows of the list of each fold."""
    paths = [lists / f"set_{number}" / f"{part}.txt" for number in range(1, 6)]
    return {path: read_labels(path, ROW, CODES, "00025.mp4 happiness", problems) for path in paths}
