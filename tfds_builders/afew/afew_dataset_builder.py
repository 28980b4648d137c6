"""TFDS builder of AFEW: clips from movies, seven expressions."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from fer_jax import labels
from fer_jax.faces import video
from fer_jax.faces.pictures import encoded
from tfds_builders.clips import about_video, follow_face, numbered_frames, stored_frames
from tfds_builders.layout import place_of, root_of
from tfds_builders.listing import Item, Listing, check_unlisted, files_below, folders_in
from tfds_builders.options import Options
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

SPLITS = {"train": ("Train_AFEW", "Train"), "validation": ("Val_AFEW", "Val")}  # the first is the archive's
TESTS = ("Test_AFEW", "Test")
CODES = tuple(map(str, labels.CODES["afew"]))  # the names of the folders
COUNTS = {  # by code
    "train": (133, 74, 81, 150, 144, 117, 74),
    "validation": (64, 40, 46, 63, 63, 61, 46),
}
MOST_LOST = 0.05  # share of the clips of a split for which the archive may hold no face

Videos = list[tuple[str, str, str]]  # (id, code, path)


@dataclasses.dataclass(frozen=True)
class AfewOptions(Options):
    """
    Attributes:
        source: 'videos', in which one face is followed and cropped to `size`; or 'aligned', the organizers' crops,
            stored whole if `size` is 0.
        margin: of a crop of a video, see `fer_jax.faces.crops`.
        every: only each n-th frame, beginning with the first.
        yunet: path of the ONNX file of the detector YuNet; '' fetches it.
    """

    source: str = "videos"
    margin: float = 0.0
    every: int = 1
    yunet: str = ""

    @property
    def crop(self) -> str:
        return "faces" if self.source == "videos" else ""


class Builder(PictureBuilder):
    """AFEW's clips by the time in their names. See README.md for the files and features."""

    HOMEPAGE = "https://cs.anu.edu.au/few/AFEW.html"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "give the folder that holds Train_AFEW/ and Val_AFEW/, each with Angry/ ... Surprise/"
    )
    VARIANTS = {"videos": AfewOptions(size=224), "aligned": AfewOptions(source="aligned")}
    CHOICES = {"source": tuple(VARIANTS)}
    FILE_SIZE = (128, 128)
    PICTURES_PER_EXAMPLE = 64

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        aligned = self.options.source == "aligned"
        if not aligned:
            video.require("afew")
        items, found, warnings, tests = {}, [], [], []
        for split, names in SPLITS.items():
            parent = root_of(manual_dir, names, "AFEW")
            tests += [parent / name for name in TESTS if (parent / name).is_dir()]
            root = place_of(parent, names, "AFEW")
            videos = _videos(root)
            found.append(f"{root}: {len(videos):,} videos")
            if not aligned:
                items[split] = [self.item(path, code, name=name) for name, code, path in videos]
                continue
            faces = root_of(root, ["Faces"], "AFEW's aligned faces") / "Faces"
            items[split] = self._aligned(faces, videos, problems)
            found.append(f"{faces}: {sum(len(item.files) for item in items[split]):,} frames")
            lost = [str(item.fields["name"]) for item in items[split] if not item.files]
            warnings += self._lost(faces, lost, len(videos), problems)
        found += [f"{folder}: not used, its labels were never published" for folder in dict.fromkeys(tests)]
        return Listing(
            items=items,
            found=tuple(found),
            warnings=tuple(warnings),
            expected=self.published(COUNTS),
        )

    def _aligned(self, faces: pathlib.Path, videos: Videos, problems: Problems) -> list[Item]:
        """Returns the clips with their folders of faces; the class is that of the video."""
        there = folders_in(faces)
        items, used = [], {}
        for name, code, path in videos:
            if name in used:
                told = f"and {used[name]} have the same name, and {faces / name} belongs to one of them: remove one"
                problems.mistake(path, told)
                continue
            used[name] = path
            files = numbered_frames(there[name], problems)[:: self.options.every] if name in there else ()
            items.append(self.item(files, code, title=str(faces / name), name=name))
        check_unlisted(there, used, "the folders of videos", problems)
        return items

    def _lost(self, faces: pathlib.Path, names: Sequence[str], total: int, problems: Problems) -> list[str]:
        """Returns a warning on clips without any face; too many of them are a mistake."""
        if not names:
            return []
        line = f"no faces of {len(names):,} of {total:,} clips ({', '.join(names[:3])}{' ...' if names[3:] else ''})"
        if len(names) > MOST_LOST * total and not self.allow_counts:
            problems.mistake(faces, f"has {line}: unpack its archive in full, or accept it with --allow_counts")
        return [f"{faces} has {line}: they are kept as one black frame that is masked"]

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        if self.options.source == "aligned":
            if item.files:
                return stored_frames(item.files, self.CHANNELS, self.FILE_SIZE, self.options.size)
            black = io.BytesIO(_black(self.picture_size() or (0, 0)))
            return {"frames": [black], "frame_mask": np.zeros(1, bool)}, ()
        path, damage = item.files[0], []
        with about_video(path):  # a truncated one is used as far as it can be read
            images = video.read(path, every=self.options.every, on_damage=damage.append)
            clip, notes = follow_face(images, self.options, self.detector)
        return clip, (*notes, *(line.removeprefix(path).lstrip(": ") for line in damage))


def _videos(root: pathlib.Path) -> Videos:
    """Returns (id, code, path) of every video below the folders of the classes, by id."""
    videos: Videos = []
    for code in CODES:
        folder = place_of(root, [code, code.lower()], "AFEW")
        for name, path in files_below(folder).items():
            stem, extension = os.path.splitext(name)
            if extension.lower() == ".avi" and not name.startswith("."):
                videos.append((stem, code, path))
    return sorted(videos)  # a name is a time in a movie, so clips of two movies may share it


@functools.cache
def _black(size: tuple[int, int]) -> bytes:
    return encoded(np.zeros((*size, 3), np.uint8), "PNG")
