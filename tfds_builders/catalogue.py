"""The rows of `list`: examples, classes, published sizes and license of each data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of the list.

    Attributes:
        examples: images or clips.
        classes: their number, in words if variants differ.
        sizes: of the splits, as published.
        license: in a few words; the README says more.
    """

    examples: str
    classes: str
    sizes: str
    license: str


CATALOGUE: Mapping[str, Entry] = MappingProxyType(
    {
        "affectnet": Entry("images", "7, 8", "train 287,651, validation 4,000", "on signed request, non-commercial"),
        "affwild2": Entry("images", "8", "frames of videos", "on request, restricts sharing models"),
        "afew": Entry("clips", "7", "train 773, validation 383", "on signed request"),
        "caer_s": Entry("images", "7", "train 47,966, test 20,868 with boxes", "for research"),
        "ckplus": Entry("clips", "7", "327 labeled, 118 people", "on signed request"),
        "dfew": Entry("clips", "7", "11,697 in 5 folds", "on request, non-commercial"),
        "expw": Entry("images", "7", "91,793 faces", "for research"),
        "fed_ro": Entry("images", "7", "test 400", "from the authors' page"),
        "fer2013": Entry("images", "7", "train 28,709, public_test and private_test 3,589", "no grant known, research"),
        "ferplus": Entry("images", "8, votes", "FER-2013's", "labels MIT, pictures FER-2013's"),
        "ferv39k": Entry("clips", "7", "train 31,088, test 7,847", "on request, research"),
        "image_folder": Entry("images", "yours", "yours", "yours"),
        "jaffe": Entry("images", "7", "213, 10 people", "on request, no redistribution"),
        "kdef": Entry("images", "7", "980 frontal, 70 people", "free for research after registration"),
        "mafw": Entry("clips", "11", "9,172 in 5 folds", "on signed request, non-commercial"),
        "mmi": Entry("clips", "6", "about 205 frontal, 30 people", "individual license"),
        "oulu_casia": Entry("clips", "6", "480 VL Strong, 80 people", "on signed request"),
        "rafce": Entry("images", "14 compound", "4,549", "on request, non-commercial"),
        "rafdb": Entry("images", "7, 11 compound", "train 12,271, test 3,068", "on request, non-commercial"),
        "sfew": Entry("images", "7", "train 891, validation 431 aligned", "on signed request"),
        "synthetic_faces": Entry("images, clips", "7, 22 compound", "as many as you like", "Apache-2.0"),
    }
)
