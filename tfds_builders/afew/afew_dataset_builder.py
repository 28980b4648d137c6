"""TFDS builder of AFEW: clips from movies, seven expressions."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import io
import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from fer_jax.errors import UserError
from fer_jax.faces import video
from fer_jax.faces.pictures import BadPicture, encoded
from tfds_builders.frames import RGB, check_frames, numbered_frames, stored_frames
from tfds_builders.layout import folder_of, root_of
from tfds_builders.listing import Item, Listing, by_class, check_unlisted, files_below
from tfds_builders.picture_builder import Options, PictureBuilder, picture_feature
from tfds_builders.problems import Problems
from tfds_builders.sequences import (
    Clip,
    check_choice,
    check_crop,
    clip_features,
    face_notes,
    folders_in,
    follow_face,
)

SPLITS = {"train": ("Train_AFEW", "Train"), "validation": ("Val_AFEW", "Val")}  # the first is the archive's
TESTS = ("Test_AFEW", "Test")
ALIGNED_SIZE = (128, 128)
CODES = tuple(map(str, labels.CODES["afew"]))  # the names of the folders
COUNTS = {  # by code
    "train": (133, 74, 81, 150, 144, 117, 74),
    "validation": (64, 40, 46, 63, 63, 61, 46),
}
MOST_LOST = 0.05  # share of the clips of a split for which the archive may hold no face
SOURCES = ("videos", "aligned")

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


VARIANTS = {"videos": AfewOptions(size=224), "aligned": AfewOptions(source="aligned")}


class Builder(PictureBuilder):
    """AFEW's clips by the time in their names. See README.md for the files and features."""

    HOMEPAGE = "https://cs.anu.edu.au/few/AFEW.html"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "give the folder that holds Train_AFEW/ and Val_AFEW/, each with Angry/ ... Surprise/"
    )
    VARIANTS = VARIANTS
    SUPERVISED_KEYS = ("frames", "label")
    PICTURES_PER_EXAMPLE = 64

    def fields(self) -> dict[str, Any]:
        f, side = tfds.features, self.options.size
        moving = self.options.source == "videos"
        times = {"frame_time": f.Tensor(shape=(None,), dtype=np.float32)} if moving else {}
        return {
            **clip_features(picture_feature((side, side) if side else ALIGNED_SIZE, RGB)),
            **times,
            "label": f.ClassLabel(names=list(labels.classes(7))),
            "code": f.Text(),
            "name": f.Text(),
        }

    def searches_faces(self) -> bool:
        return self.options.source == "videos"

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        self._check_options()
        items, found, warnings, lost = {}, [], [], {}
        for split, names in SPLITS.items():
            root = folder_of(root_of(manual_dir, names, "AFEW"), names, "AFEW")
            videos = _videos(root, problems)
            found.append(f"{root}: {len(videos):,} videos")
            if self.options.source == "videos":
                items[split] = [self._item((path,), clip, code, path) for clip, code, path in videos]
                continue
            faces = root_of(root, ["Faces"], "AFEW's aligned faces") / "Faces"
            items[split] = self._aligned(faces, videos, problems)
            found.append(f"{faces}: {sum(len(item.files) for item in items[split]):,} frames")
            lost[split] = [str(item.fields["name"]) for item in items[split] if not item.files]
            warnings += self._lost(faces, lost[split], len(videos), problems)
        parents = dict.fromkeys(root_of(manual_dir, names, "AFEW") for names in SPLITS.values())
        tests = (parent / name for parent in parents for name in TESTS)
        found += [f"{folder}: not used, its labels were never published" for folder in tests if folder.is_dir()]
        return Listing(
            items=items,
            found=tuple(found),
            warnings=tuple(warnings),
            metadata={
                "protocol": "train on train, accuracy on validation, which serves as the test: the labels of the test "
                "were never published; clips without a face are scored too",
                "without_faces": lost,
            },
            expected={split: by_class("afew", CODES, n, labels.classes(7)) for split, n in COUNTS.items()},
        )

    def _check_options(self) -> None:
        options = self.options
        check_choice("afew", "source", options.source, SOURCES)
        check_frames("afew", options.every, options.size)
        if options.source != "videos":
            return
        check_crop("afew", options)
        if importlib.util.find_spec("av") is None:
            raise UserError("afew: reading its videos needs PyAV: pip install 'fer_jax[video]', or build afew/aligned")

    def _item(self, files: tuple[str, ...], name: str, code: str, title: str) -> Clip:
        return Clip(files, labels.index("afew", code, 7), {"code": code, "name": name}, title=title)

    def _aligned(self, faces: pathlib.Path, videos: Videos, problems: Problems) -> list[Item]:
        """Returns the clips with their folders of faces; the class is that of the video."""
        there = folders_in(faces)
        items, used = [], {}
        for name, code, path in videos:
            if name in used:
                problems.mistake(
                    path, f"and {used[name]} have the same name, and {faces / name} belongs to one of them: remove one"
                )
                continue
            used[name] = path
            files = numbered_frames(there[name], problems)[:: self.options.every] if name in there else ()
            items.append(self._item(files, name, code, str(faces / name)))
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
        fields = {"label": item.label, **item.fields}
        if self.options.source == "videos":
            clip, notes = self._followed(item.files[0])
            return {**clip, **fields}, notes
        if not item.files:
            side = self.options.size
            black = io.BytesIO(_black((side, side) if side else ALIGNED_SIZE))
            return {"frames": [black], "frame_mask": np.zeros(1, bool), **fields}, ()
        frames, notes = stored_frames(item.files, ALIGNED_SIZE, self.options.size)
        return {"frames": frames, "frame_mask": np.ones(len(frames), bool), **fields}, notes

    def _followed(self, path: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Follows the face in a video; a truncated one is used as far as it can be read, and noted."""
        options, damage = self.options, []
        try:
            images = video.read(path, every=options.every, on_damage=damage.append)
            clip = follow_face(images, options.size, options.margin, self.detector)
        except UserError as error:
            raise BadPicture(_without_path(str(error), path)) from error
        notes = (*face_notes(clip.mask), *(_without_path(line, path) for line in damage))
        return {"frames": clip.frames, "frame_mask": clip.mask, "frame_time": clip.time}, notes


def _videos(root: pathlib.Path, problems: Problems) -> Videos:
    """Returns (id, code, path) of every video below the folders of the classes, by id."""
    videos: Videos = []
    for code in CODES:
        folder = folder_of(root, [code, code.lower()], "AFEW")
        for name, path in files_below(folder).items():
            stem, extension = os.path.splitext(name)
            if extension.lower() == ".avi" and not name.startswith("."):
                videos.append((stem, code, path))
    videos.sort()
    # A name is a time in a movie, so clips of two movies may share it; the same file in two classes is a mistake.
    for (name, code, path), (other, another, copy) in itertools.pairwise(videos):
        if name == other and _same(path, copy):
            problems.mistake(copy, f"of {another} is also in {code}: remove it from one of them")
    return videos


def _same(path: str, other: str) -> bool:
    if os.path.getsize(path) != os.path.getsize(other):
        return False
    return pathlib.Path(path).read_bytes() == pathlib.Path(other).read_bytes()


@functools.cache
def _black(size: tuple[int, int]) -> bytes:
    return encoded(np.zeros((*size, RGB), np.uint8), "PNG")


def _without_path(line: str, path: str) -> str:
    return line.removeprefix(path).lstrip(": ")
