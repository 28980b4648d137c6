"""The rows of `list`: examples, classes, published sizes and license of each data set."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CATALOGUE: Mapping[str, tuple[str, str, str, str]] = MappingProxyType(
    {
        "affectnet": ("images", "7, 8", "train 287,651, validation 4,000", "on signed request, non-commercial"),
        "affwild2": ("images", "8", "frames of videos", "on request, restricts sharing models"),
        "afew": ("clips", "7", "train 773, validation 383", "on signed request"),
        "caer_s": ("images", "7", "train 47,966, test 20,868 with boxes", "for research"),
        "ckplus": ("clips", "7", "327 labeled, 118 people", "on signed request"),
        "dfew": ("clips", "7", "11,697 in 5 folds", "on request, non-commercial"),
        "expw": ("images", "7", "91,793 faces", "for research"),
        "fed_ro": ("images", "7", "test 400", "from the authors' page"),
        "fer2013": ("images", "7", "train 28,709, public_test and private_test 3,589", "no grant known, research"),
        "ferplus": ("images", "8, votes", "FER-2013's", "labels MIT, pictures FER-2013's"),
        "ferv39k": ("clips", "7", "train 31,088, test 7,847", "on request, research"),
        "image_folder": ("images", "yours", "yours", "yours"),
        "jaffe": ("images", "7", "213, 10 people", "on request, no redistribution"),
        "kdef": ("images", "7", "980 frontal, 70 people", "free for research after registration"),
        "mafw": ("clips", "11", "9,172 in 5 folds", "on signed request, non-commercial"),
        "mmi": ("clips", "6", "about 205 frontal, 30 people", "individual license"),
        "oulu_casia": ("clips", "6", "480 VL Strong, 80 people", "on signed request"),
        "rafce": ("images", "14 compound", "4,549", "on request, non-commercial"),
        "rafdb": ("images", "7, 11 compound", "train 12,271, test 3,068", "on request, non-commercial"),
        "sfew": ("images", "7", "train 891, validation 431 aligned", "on signed request"),
        "synthetic_faces": ("images, clips", "7, 22 compound", "as many as you like", "Apache-2.0"),
    }
)
