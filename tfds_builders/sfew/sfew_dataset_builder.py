"""TFDS builder of SFEW: single frames from movies, seven expressions."""

from __future__ import annotations

import os
import pathlib

from etils import epath

from fer_jax import labels
from tfds_builders.layout import find, place_of, root_of, undoubled
from tfds_builders.listing import ALL, Listing, folders_in, pictures_in
from tfds_builders.options import CropOptions
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

ALIGNED = {  # the first that exists is read: the validation faces were aligned again
    "train": ("Train_Aligned_Faces",),
    "validation": ("Val_Aligned_Faces_new", "Val_Aligned_Faces"),
}
FULL = {"train": "Train", "validation": "Val"}
TESTS = ("Test", "Test_Aligned_Faces")
CODES = tuple(map(str, labels.CODES["sfew"]))  # the names of the folders
COUNTS = {  # of the full frames, by code
    "train": (178, 66, 98, 198, 150, 172, 96),
    "validation": (77, 23, 47, 73, 86, 73, 57),
}
ALIGNED_TOTALS = {"train": 891, "validation": 431}  # not known by class


class Builder(PictureBuilder):
    """SFEW by the names of its files. See README.md for the files and features."""

    HOMEPAGE = "https://cs.anu.edu.au/few/AFEW.html"
    MANUAL_DOWNLOAD_INSTRUCTIONS = "give the folder that holds Train/ and Val/"
    VARIANTS = {"aligned": CropOptions(crop="aligned"), "full": CropOptions(size=224)}
    CHOICES = {"crop": ("aligned", "faces")}  # 'aligned' are the organizers' faces
    FILE_SIZE = (181, 143)
    AS_IS = "aligned"

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        items, found = {}, []
        seen: dict[str, str] = {}
        for split, name in FULL.items():
            if self.as_is():
                folder = _aligned_folder(manual_dir, ALIGNED[split])
            else:
                folder = root_of(manual_dir, [f"{name}/{CODES[0]}"], "SFEW (full frames)") / name
            items[split] = []
            for code in CODES:
                for file, path in pictures_in(place_of(folder, [code, code.lower()], "SFEW")).items():
                    if file in seen:
                        problems.mistake(path, f"has the same name as {seen[file]}: remove one of them")
                    seen[file] = path
                    items[split].append(self.item(path, code, name=file))
            items[split].sort(key=lambda item: item.fields["name"])
            found.append(f"{folder}: {len(items[split]):,} pictures")
        start = pathlib.Path(manual_dir)
        found += [f"{start / name}: not used, it has no labels" for name in TESTS if (start / name).is_dir()]
        totals = {split: {ALL: n} for split, n in ALIGNED_TOTALS.items()}
        return Listing(items=items, found=tuple(found), expected=totals if self.as_is() else self.published(COUNTS))


def _aligned_folder(manual_dir: os.PathLike[str] | str, names: tuple[str, ...]) -> pathlib.Path:
    """Returns the folder that holds the classes; the newer alignment if both exist."""
    folder = find(manual_dir, names, "SFEW (aligned)")
    if not folders_in(folder, "|".join(CODES)):
        # The newer archive's folder may hold one of the older name.
        inner = [path for name, path in folders_in(folder).items() if name in names]
        folder = undoubled(pathlib.Path(inner[0])) if inner else folder
    return folder
