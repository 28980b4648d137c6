"""TFDS builder of CK+: 327 sequences from neutral to the peak of an expression, with landmarks of every frame."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from fer_jax.faces.alignment import align_points, crop_box, transform_points
from fer_jax.faces.pictures import pixels
from tfds_builders.ckplus import trees
from tfds_builders.clips import about_frame, all_faces, tallied
from tfds_builders.face_crops import stored
from tfds_builders.layout import find
from tfds_builders.listing import Item, Listing, numbered, pictures_in
from tfds_builders.options import Options
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

COUNTS = (45, 18, 59, 25, 69, 28, 83)  # by code from 1
SEQUENCES = 593
FOLDS = 10
CONTEMPT = 2
TREES = ("cohn-kanade-images", "Emotion", "Landmarks")


@dataclasses.dataclass(frozen=True)
class CkOptions(Options):
    """
    Attributes:
        crop: 'landmarks', faces aligned by landmarks; or 'none', whole frames with black bars.
        margin: beyond the template of aligned faces, on each side, as a share of its side.
        contempt: whether to include its 18 sequences.
    """

    size: int = 224
    crop: str = "landmarks"
    margin: float = 0.0
    contempt: bool = True


class Builder(PictureBuilder):
    """CK+ by subject and sequence. See README.md for the files and features."""

    HOMEPAGE = "https://www.jeffcohn.net/Resources/"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds cohn-kanade-images/, Emotion/ and Landmarks/"
    VARIANTS = {"labeled": CkOptions(), "without_contempt": CkOptions(contempt=False)}
    CHOICES = {"crop": ("landmarks", "none")}
    CHANNELS = 1
    PICTURES_PER_EXAMPLE = 16

    @property
    def classes(self) -> tuple[str, ...]:
        """The seven emotions, or six; no sequence is neutral (`data.neutral_frames` adds that class)."""
        return labels.classes(8 if self.options.contempt else 7)[1:]

    def fields(self) -> dict[str, Any]:
        landmarks = tfds.features.Tensor(shape=(None, trees.LANDMARKS, 2), dtype=np.float32)
        return {**super().fields(), "subject": np.int64, "fold": np.int64, "landmarks": landmarks}

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        roots = {name: find(manual_dir, [name], "CK+") for name in TREES}
        pictures, marks = trees.sequences_of(roots[TREES[0]]), trees.sequences_of(roots["Landmarks"])
        emotions = {}
        for name, folder in trees.sequences_of(roots["Emotion"]).items():
            if (emotion := trees.read_emotion(folder, problems)) is not None:
                emotions[name] = emotion
        # The rank of a person with a label modulo ten is the usual fold.
        subjects = numbered(name.partition("/")[0] for name in emotions)
        items = []
        for name, (code, peak) in sorted(emotions.items()):
            if code == CONTEMPT and not self.options.contempt:
                continue
            if name not in pictures:
                problems.gap(roots[TREES[0]] / name, "has an emotion and no pictures: unpack the images again")
                continue
            files = self._frames(name, pictures[name], marks.get(name), peak, problems)
            if files is None:
                continue
            images, points = files
            subject = subjects[name.partition("/")[0]]
            fields = {"subject": subject, "fold": subject % FOLDS, "name": name.replace("/", "_")}
            # `crop` has the file of landmarks of each frame, '' if there is none.
            every = (*images, *filter(None, points))
            items.append(self.item(every, code, crop=tuple(points), title=pictures[name], **fields))
        found = f"{len(pictures):,} sequences, {len(emotions):,} of {len(subjects)} people with an emotion"
        return Listing(
            items={"train": items},
            found=(f"{roots[TREES[0]]}: {found}; the archives have {SEQUENCES}, 327 of them with one",),
            metadata={"subjects": list(subjects)},
            expected=self.published({"train": COUNTS}, range(1, 8)),
        )

    def _frames(
        self, name: str, folder: str, marks: str | None, peak: str, problems: Problems
    ) -> tuple[list[str], list[str]] | None:
        """Returns the pictures of a sequence in order, and the path of the landmarks of each, '' without any.

        None if the sequence is incomplete.
        """
        before = len(problems.gaps) + len(problems.mistakes)
        images = {}
        for file, path in sorted(pictures_in(folder).items()):
            stem = os.path.splitext(file)[0]
            if not trees.FRAME.fullmatch(file) or not file.startswith(name.replace("/", "_") + "_"):
                problems.mistake(path, f"is not named like a frame of {name}: move it to its folder")
                continue
            if stem in images:
                problems.mistake(path, "exists in two formats: remove one of them")
            images[stem] = path
        points = trees.texts_in(marks, trees.LANDMARK_FILE) if marks else {}
        points = {file.removesuffix("_landmarks.txt"): path for file, path in points.items()}
        lost = sorted(set(points) - set(images))
        unmarked = sorted(set(images) - set(points)) if self.options.crop == "landmarks" else []
        if not images:
            problems.gap(folder, "holds no picture: unpack the images again")
        elif lost:
            problems.gap(
                f"{folder}/{lost[0]}.png", f"is not there{_more(lost)}, though it has landmarks: copy it again"
            )
        elif unmarked:
            where = f"{marks or folder}/{unmarked[0]}_landmarks.txt"
            problems.gap(
                where, f"is not there{_more(unmarked)}: unpack Landmarks.zip again, or give --option=crop=none"
            )
        elif peak not in images:
            problems.gap(f"{folder}/{peak}.png", "is not there, though it is the peak of its sequence: copy it again")
        if len(problems.gaps) + len(problems.mistakes) > before:
            return None
        return list(images.values()), [points.get(stem, "") for stem in images]

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        options = self.options
        frames, notes, landmarks = [], [], []
        for path, mark in zip(item.files, item.crop, strict=False):  # the files of landmarks follow the pictures
            with about_frame(path):
                image, converted = pixels(path, self.CHANNELS)
                height, width = image.shape[:2]
                points = trees.read_landmarks(mark, (height, width)) if mark else np.full((trees.LANDMARKS, 2), np.nan)
                if options.crop == "landmarks":
                    crop = align_points(image, points, options.size, options.margin)
                else:
                    crop = crop_box(image, (0, 0, width, height), options.size)
            frames.append(stored(crop.image))
            landmarks.append(transform_points(points, crop.matrix))
            notes += converted
        return {**all_faces(frames), "landmarks": np.stack(landmarks).astype(np.float32)}, tallied(notes)


def _more(names: Sequence[str]) -> str:
    return f" (nor are {len(names) - 1} more)" if len(names) > 1 else ""
