"""TFDS builder of FERV39k: clips of faces from 22 kinds of scenes, seven expressions."""

from __future__ import annotations

import pathlib
import re

from etils import epath

from fer_jax import labels
from tfds_builders.clips import FrameFolderBuilder
from tfds_builders.label_lists import read_labels
from tfds_builders.layout import find, place_of
from tfds_builders.listing import Listing, folders_in
from tfds_builders.problems import Problems

LISTS = "4_setups/All_scenes"
CLIPS = "2_ClipsforFaceCrop"
CODES = tuple(map(str, labels.CODES["ferv39k"]))  # the names of the folders, and the labels in the lists
ROW = re.compile(r"([^/]+/[^/]+/\d+)\s+(\S+)")  # scene, class, number
COUNTS = {  # by code
    "train": (5854, 5523, 7790, 5906, 2502, 1833, 1680),
    "test": (1473, 1393, 1958, 1487, 638, 467, 431),
}


class Builder(FrameFolderBuilder):
    """FERV39k in the order of its lists of all scenes. See README.md for the files and features."""

    HOMEPAGE = "https://wangyanckxx.github.io/Proj_CVPR2022_FERV39k.html"
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"give the folder that holds {CLIPS}/ and 4_setups/"

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        lists, clips = find(manual_dir, [LISTS], "FERV39k"), find(manual_dir, [CLIPS], "FERV39k")
        there = {
            f"{scene}/{code}/{number}": path
            for scene, folder in folders_in(clips).items()
            for code, inner in folders_in(folder).items()
            for number, path in folders_in(inner, r"\d+").items()
        }
        items, found = {}, []
        listed: dict[str, pathlib.Path] = {}
        for split in COUNTS:
            path = place_of(lists, [f"{split}_All.csv"], "FERV39k")
            rows = read_labels(path, ROW, CODES, "Action/Happy/0015 Happy", problems)
            found.append(f"{path}: {len(rows):,} clips")
            items[split] = []
            for name, code in rows.items():
                if name.split("/")[1] != code:
                    problems.mistake(path, f"labels {name} {code}, unlike its folder: get the list again")
                elif name in listed:
                    problems.mistake(path, f"has the clip {name}, which {listed[name]} has too: get the lists again")
                else:
                    listed[name] = path
                    items[split] += self.clip(there.get(name), clips / name, code, problems, name=name)
        left = len(there.keys() - listed)
        found.append(f"{clips}: {len(there):,} clips, {left:,} of them in neither list and not used")
        return Listing(items=items, found=tuple(found), expected=self.published(COUNTS))
