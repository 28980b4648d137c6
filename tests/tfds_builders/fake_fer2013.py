"""A tiny FER-2013 of random pictures, in every form the original is passed around."""

from __future__ import annotations

import io
import pathlib
import tarfile
from dataclasses import dataclass

import numpy as np
from PIL import Image

USAGES = ("Training", "PublicTest", "PrivateTest")
COUNTS = np.array([[3, 1, 2, 4, 2, 2, 3], [2, 1, 1, 1, 1, 1, 2], [1, 1, 2, 1, 1, 2, 1]])
KAGGLE = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
PREPARED = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")
BLACK_ROW, LEAKED_ROWS = 4, (2, 9)  # of the training rows; each leaks from one of the test splits


@dataclass(frozen=True)
class Fake:
    images: np.ndarray
    code: np.ndarray
    split: np.ndarray

    def rows(self) -> list[list[str]]:
        return [
            [str(code), " ".join(map(str, image.ravel())), USAGES[split]]
            for image, code, split in zip(self.images, self.code, self.split, strict=True)
        ]


def make() -> Fake:
    """Three splits one after the other, classes mixed within each; one black picture and two that leak."""
    rng = np.random.default_rng(0)
    code = np.concatenate([rng.permutation(np.repeat(np.arange(7), row)) for row in COUNTS])
    split = np.repeat(np.arange(3), COUNTS.sum(axis=1))
    images = rng.integers(0, 256, (len(code), 48, 48), dtype=np.uint8)
    images[BLACK_ROW] = 0
    images[LEAKED_ROWS[0]] = images[np.flatnonzero(split == 1)[3]]
    images[LEAKED_ROWS[1]] = images[np.flatnonzero(split == 2)[0]]
    return Fake(images, code, split)


def text(rows, header="emotion,pixels,Usage", order=(0, 1, 2)) -> str:
    return "".join(f"{line}\n" for line in [header, *(",".join(row[i] for i in order) for row in rows)])


def write_csv(folder: pathlib.Path, fake: Fake, name="fer2013.csv") -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    is_icml = name == "icml_face_data.csv"
    content = text(fake.rows(), "emotion, Usage, pixels", (0, 2, 1)) if is_icml else text(fake.rows())
    (folder / name).write_text(content)
    return folder / name


def write_archive(folder: pathlib.Path, fake: Fake) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "fer2013.tar.gz", "w:gz") as archive:
        for name, content in (("fer2013/fer2013.bib", "@x{}"), ("fer2013/fer2013.csv", text(fake.rows()))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return folder / "fer2013.tar.gz"


def write_kaggle_folders(folder: pathlib.Path, fake: Fake) -> None:
    """`Training_<n>.jpg`, where `<n>` has nothing to do with the row; with files that systems leave behind."""
    numbers = np.random.default_rng(1).permutation(10 * len(fake.code))
    for image, code, split, number in zip(fake.images, fake.code, fake.split, numbers, strict=False):
        place = folder / ("train" if split == 0 else "test") / KAGGLE[code]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{USAGES[split]}_{number}.jpg", quality=95)
    (folder / "train" / ".DS_Store").write_bytes(b"x")
    (folder / "train" / "happy" / ".DS_Store").write_bytes(b"x")


def write_prepared_folders(folder: pathlib.Path, fake: Fake) -> None:
    """`im<k>.png`, `k` counting the class in the order of the CSV; `test` is both test splits in that order."""
    counter: dict[tuple[str, int], int] = {}
    for image, code, split in zip(fake.images, fake.code, fake.split, strict=True):
        part = "train" if split == 0 else "test"
        number = counter.get((part, code), 0)
        counter[part, code] = number + 1
        place = folder / part / PREPARED[code]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"im{number}.png")
