"""TFDS builder of MMI: videos of a frontal face, neutral to apex to neutral, with one of six emotions."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import os
import pathlib
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax import labels
from fer_jax.errors import UserError
from fer_jax.faces import video
from fer_jax.faces.pictures import BadPicture
from tfds_builders.frames import check_frames
from tfds_builders.layout import Absent
from tfds_builders.listing import Item, Listing
from tfds_builders.mmi import orientation, sessions
from tfds_builders.picture_builder import Options, PictureBuilder, picture_feature
from tfds_builders.problems import Problems
from tfds_builders.sequences import (
    Clip,
    archives_below,
    check_choice,
    check_crop,
    clip_features,
    face_notes,
    find_folders,
    folders_in,
    follow_face,
    numbered,
)

NAMES = labels.classes(7)[1:]  # no video is neutral as a whole
PROBES = 5  # frames that decide whether a video is turned
PROBE_EVERY = 10  # distance between them


@dataclasses.dataclass(frozen=True)
class MmiOptions(Options):
    """
    Attributes:
        margin: beyond the template of aligned faces, on each side, as a share of its side.
        every: only each n-th frame, beginning with the first.
        rotate: 'auto' turns a video clockwise if more faces are found that way; 'clockwise' turns all; 'never' none.
        yunet: path of the ONNX file of the detector YuNet; '' fetches it.
    """

    size: int = 224
    margin: float = 0.0
    every: int = 1
    rotate: str = "auto"
    yunet: str = ""


VARIANTS = {"frontal": MmiOptions()}


class Builder(PictureBuilder):
    """MMI's frontal videos with an emotion, by session. See README.md for the files and features."""

    HOMEPAGE = "https://mmifacedb.eu"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds Sessions/, or one with several downloads"
    VARIANTS = VARIANTS
    SUPERVISED_KEYS = None
    PICTURES_PER_EXAMPLE = 256  # of which each costs a search for faces

    def fields(self) -> dict[str, Any]:
        f = tfds.features
        picture = picture_feature((self.options.size, self.options.size), self.CHANNELS)
        return {
            **clip_features(picture),
            "frame_time": f.Tensor(shape=(None,), dtype=np.float32),
            "label": f.ClassLabel(names=list(NAMES)),
            "code": np.int64,
            "subject": np.int64,
            "session": np.int64,
            "both_views": np.bool_,
            "turned": np.bool_,
            "name": f.Text(),
        }

    def check_options(self, given: Collection[str]) -> None:
        check_choice("mmi", "rotate", self.options.rotate, orientation.ROTATIONS)
        check_crop("mmi", self.options)
        check_frames("mmi", self.options.every, self.options.size)

    def searches_faces(self) -> bool:
        return True

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        if importlib.util.find_spec("av") is None:
            raise UserError("mmi: reading its videos needs PyAV: pip install 'fer_jax[video]'")
        folders = _sessions(manual_dir, problems)
        left: Counter[str] = Counter()
        chosen: dict[int, sessions.Session] = {}
        for number, folder in sorted(folders.items()):
            if (session := sessions.read_session(folder, left, problems)) is not None:
                chosen[number] = session
        subjects = numbered(session.subject for session in chosen.values())
        items = []
        for number, session in chosen.items():
            fields = {
                "code": session.code,
                "subject": subjects[session.subject],
                "session": number,
                "both_views": session.view == sessions.BOTH,
                "name": session.name,
            }
            label = NAMES.index(labels.canonical("mmi", session.code))
            items.append(Clip((session.path,), label=label, fields=fields))
        said = f"{len(folders):,} sessions, {len(items):,} frontal videos with an emotion of {len(subjects)} people"
        return Listing(
            items={"train": items},
            found=tuple(filter(None, (f"{manual_dir}: {said}", sessions.left_out(left)))),
            metadata={
                "subjects": list(subjects),
                "sessions": list(chosen),
                "left_out": dict(left),
                "protocol": "ten folds by subject, every tenth person in one; the videos depend on the download, see "
                "sessions",
            },
        )

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        options, path, damage = self.options, item.files[0], []
        try:
            # Only a few frames are in memory at a time.
            probes = video.read(path, every=PROBE_EVERY, on_damage=damage.append)
            images = [image for _, image in itertools.islice(probes, PROBES)]
            both = bool(item.fields["both_views"])
            transform = orientation.choose_transform(images, options.rotate, both, self.detector)
            frames = video.read(path, every=options.every, on_damage=damage.append)
            turned = ((time, transform(image)) for time, image in frames)
            clip = follow_face(turned, options.size, options.margin, self.detector)
        except UserError as error:
            raise BadPicture(_without_path(str(error), path)) from error
        if damage:
            raise BadPicture(_without_path(damage[0], path))
        example = {
            "frames": clip.frames,
            "frame_mask": clip.mask,
            "frame_time": clip.time,
            "turned": transform is orientation.clockwise,
            "label": item.label,
            **item.fields,
        }
        return example, face_notes(clip.mask)

    def example_name(self, where: str) -> str:
        return sessions.session_in(where) or super().example_name(where)


def _sessions(manual_dir: os.PathLike[str], problems: Problems) -> dict[int, str]:
    """Returns number -> folder of the sessions of one or several downloads."""
    roots = find_folders(manual_dir, ["Sessions"])
    if not roots:
        raise Absent(f"{manual_dir} has no Sessions/ of MMI{archives_below(manual_dir)}")
    found: dict[int, str] = {}
    for root in roots:
        for name, folder in folders_in(root, r"\d+").items():
            if int(name) in found:
                problems.mistake(folder, f"has the same number as {found[int(name)]}: remove one of them")
            found[int(name)] = folder
    return found


def _without_path(message: str, path: str) -> str:
    """Removes the video's path from the beginning of a message."""
    return message.removeprefix(str(pathlib.Path(path))).lstrip(": ")
