"""TFDS builder of MMI: videos of a frontal face, neutral to apex to neutral, with one of six emotions."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from fer_jax import labels
from fer_jax.faces import video
from tfds_builders.clips import about_video, follow_face
from tfds_builders.layout import Absent, folders_with, packed
from tfds_builders.listing import Item, Listing, folders_in, numbered
from tfds_builders.mmi import orientation, sessions
from tfds_builders.options import Options
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

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
    crop = "faces"


class Builder(PictureBuilder):
    """MMI's frontal videos with an emotion, by session. See README.md for the files and features."""

    HOMEPAGE = "https://mmifacedb.eu"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds Sessions/, or one with several downloads"
    VARIANTS = {"frontal": MmiOptions()}
    CHOICES = {"rotate": orientation.ROTATIONS}
    CLASSES = labels.classes(7)[1:]  # no video is neutral as a whole
    PICTURES_PER_EXAMPLE = 256  # of which each costs a search for faces

    def fields(self) -> dict[str, Any]:
        return {
            **super().fields(),
            "subject": np.int64,
            "session": np.int64,
            "both_views": np.bool_,
            "turned": np.bool_,
        }

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        video.require("mmi")
        roots = [folder / "Sessions" for folder in folders_with(manual_dir, "Sessions".__eq__)]
        if not roots:
            raise Absent(f"{manual_dir} has no Sessions/ of MMI{packed(manual_dir)}")
        folders: dict[int, str] = {}
        for root in roots:
            for name, folder in folders_in(root, r"\d+").items():
                if int(name) in folders:
                    problems.mistake(folder, f"has the same number as {folders[int(name)]}: remove one of them")
                folders[int(name)] = folder
        left: Counter[str] = Counter()
        read = {number: sessions.read_session(folder, left, problems) for number, folder in sorted(folders.items())}
        chosen = {number: session for number, session in read.items() if session is not None}
        subjects = numbered(session.subject for session in chosen.values())
        items = [
            self.item(
                session.path,
                session.code,
                subject=subjects[session.subject],
                session=number,
                both_views=session.view == sessions.BOTH,
                name=session.name,
            )
            for number, session in chosen.items()
        ]
        said = f"{len(folders):,} sessions, {len(items):,} frontal videos with an emotion of {len(subjects)} people"
        return Listing(
            items={"train": items},
            found=tuple(filter(None, (f"{manual_dir}: {said}", sessions.left_out(left)))),
            metadata={"subjects": list(subjects), "sessions": list(chosen), "left_out": dict(left)},
        )

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        options, path, detector = self.options, item.files[0], self.detector
        assert detector is not None  # `searches_faces` says so
        with about_video(path):
            # Only a few frames are in memory at a time.
            probes = [image for _, image in itertools.islice(video.read(path, every=PROBE_EVERY), PROBES)]
            both = bool(item.fields["both_views"])
            transform = orientation.choose_transform(probes, options.rotate, both, detector)
            frames = ((time, transform(image)) for time, image in video.read(path, every=options.every))
            clip, notes = follow_face(frames, options, detector)
        return {**clip, "turned": transform is orientation.clockwise}, notes
