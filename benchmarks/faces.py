"""Measures how faces of FER-2013 are found, cropped and marked:  python -m benchmarks.faces --out results/faces.json

It needs the prepared data set, its landmarks (`python -m tfds_builders landmarks fer2013`) and YuNet, and takes three
minutes on one core. It measures

  * the share of pictures in which YuNet finds a face, shown as they are (48 pixels) and enlarged to 128;
  * how far crops of the cascade's faces lie from those by YuNet's five points, in the median: with eyes and without;
  * the share of pictures that have landmarks;
  * the constant points that suit FER-2013 best (`template`: medians over the training split, in pixels of 224), and how
    far the constants of `fer_jax.data.sources.points` lie from the landmarks of each split, in the median.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from benchmarks.records import check_file, one_line, user_path, write_file
from benchmarks.turns import markdown
from fer_jax.data.sources.decoding import decoded
from fer_jax.data.sources.points import (
    TEMPLATE_CROP,
    TEMPLATES,
    face_places,
    face_points,
    face_template,
    stored_landmarks,
)
from fer_jax.data.sources.records import data_digest
from fer_jax.errors import UserError
from fer_jax.faces import detection
from fer_jax.faces.alignment import align_points, transform_points
from fer_jax.faces.crops import crop_face
from fer_jax.faces.detection import Face, Haar, YuNet, choose
from tfds_builders import registry
from tfds_builders.prepared import require_prepared

SPLITS = ("train", "public_test", "private_test")
SIZE = 112  # of a crop
SOME = 2000  # training pictures that are searched with the cascade, which is slow


def measure(data_dir: str | None, yunet: str | None) -> dict[str, Any]:
    builder = registry.make_builder("fer2013", data_dir)
    require_prepared(builder)
    detector = detection.best_detector(yunet)
    if not isinstance(detector, YuNet):
        raise UserError("YuNet could not be fetched: give its file with --yunet")
    result: dict[str, Any] = {"detector": str(detector), "opencv": cv2.__version__, "data_digest": {}}
    marks = {}
    for split in SPLITS:
        result["data_digest"][split] = digest = data_digest(builder, split)
        stored = stored_landmarks(builder.data_path, split, digest)
        if not stored:
            raise UserError(f"{builder.data_path} has no landmarks: run `python -m tfds_builders landmarks fer2013`")
        marks[split] = stored["landmarks"]
    pictures = {split: decoded(builder, split, on_disk=True)["image"][:] for split in SPLITS}
    result["found"] = found_shares(detector, pictures["public_test"])
    rows = np.sort(np.random.default_rng(0).choice(len(pictures["train"]), SOME, replace=False))
    result["crops"] = crop_offsets(detector, pictures["train"][rows])
    there = {split: values[np.isfinite(values).all(axis=(1, 2))] for split, values in marks.items()}
    result["landmarks"] = {split: len(there[split]) / len(marks[split]) for split in SPLITS}
    places = face_places(there["train"].astype(np.float64)) * TEMPLATE_CROP / pictures["train"].shape[1]
    result["template"] = np.median(places, axis=0).round(1).tolist()
    result["template_off"] = {
        name or "default": {split: template_off(there[split], name) for split in SPLITS} for name in TEMPLATES
    }
    return result


def found_shares(detector: YuNet, pictures: np.ndarray) -> dict[str, float]:
    """Returns the share of pictures with a face, by the side to which they are enlarged for the network."""
    usual, shares = detection.SHORTEST, {}
    try:
        for side in (pictures.shape[1], usual):
            detection.SHORTEST = side
            shares[str(side)] = float(np.mean([bool(detector(picture)) for picture in pictures]))
    finally:
        detection.SHORTEST = usual
    return shares


def crop_offsets(detector: YuNet, pictures: np.ndarray) -> dict[str, Any]:
    """Returns how crops of the cascade's faces differ from those by YuNet's points, with eyes found and without."""
    haar, apart = Haar(), {"with eyes": [], "the same by their box": [], "without eyes": []}
    for picture in pictures:
        face, known = choose(haar(picture)), choose(detector(picture))
        if face is None or known is None or known.points is None:
            continue
        truth = align_points(picture, known.points, SIZE).matrix
        plain = crop_face(picture, Face(face.box, face.score), SIZE)
        if face.points is None:
            apart["without eyes"].append(difference(plain, truth))
            continue
        apart["with eyes"].append(difference(crop_face(picture, face, SIZE), truth))
        apart["the same by their box"].append(difference(plain, truth))
    medians = {how: np.median(np.array(rows), axis=0).tolist() for how, rows in apart.items()}
    return {how: {"faces": len(apart[how]), "pixels": off, "scale": scale} for how, (off, scale) in medians.items()}


def difference(crop: Any, truth: np.ndarray) -> tuple[float, float]:
    """Returns how far a crop shows the middle of the true crop from its own, in pixels of `SIZE`, and its scale."""
    middle = np.full(2, (SIZE - 1) / 2)
    seen = np.linalg.solve(truth[:, :2], middle - truth[:, 2])
    scales = [np.sqrt(np.linalg.det(matrix[:, :2])) for matrix in (crop.matrix, truth)]
    return float(np.linalg.norm(transform_points(seen, crop.matrix) - middle)), float(scales[0] / scales[1])


def template_off(marks: np.ndarray, name: str) -> float:
    """Returns the median over faces [N, 68, 2] of the mean distance of the 24 points to a template, in pixels of 48."""
    apart = np.linalg.norm(face_points(marks, 48, 48) - face_template(48, 48, name), axis=-1)
    return float(np.median(apart.mean(axis=1)))


def as_table(result: dict[str, Any]) -> str:
    """Returns the numbers as Markdown."""
    rows = [[f"YuNet finds a face at {side} pixels", f"{share:.1%}"] for side, share in result["found"].items()]
    for how, row in result["crops"].items():
        what = f"crop of a face of the cascade, {how}, {row['faces']:,} faces"
        rows.append([what, f"{row['pixels']:.1f} of {SIZE} pixels off, scale {row['scale']:.2f}"])
    rows += [[f"landmarks found, {split}", f"{share:.1%}"] for split, share in result["landmarks"].items()]
    for name, by_split in result["template_off"].items():
        what = "ACNN's points without landmarks" + (f", those of {name}" if name != "default" else "")
        rows.append([what, f"{by_split['private_test']:.1f} of 48 pixels off on private_test"])
    return markdown(["FER-2013", "median or share"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=user_path, default=pathlib.Path("results/faces.json"), help="the JSON to write")
    parser.add_argument("--data_dir", help="of prepared data (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)")
    parser.add_argument("--yunet", type=user_path, help="file of the detector YuNet (default: fetched once)")
    args = parser.parse_args(arguments)
    with one_line():
        check_file(args.out, ".md")
        result = measure(args.data_dir, args.yunet)
        write_file(args.out, result, as_table(result))
        print(as_table(result))


if __name__ == "__main__":
    main()
