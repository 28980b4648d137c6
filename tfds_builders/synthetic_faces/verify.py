"""Measures what README.md claims about the synthetic faces and writes the numbers.

    python -m tfds_builders.synthetic_faces.verify --out results/synthetic_faces.json --resnet_run RUN

The accuracy of a ResNet-18 is taken from the `results.json` of a run of the project's own harness
(`python run.py --config=experiments/baseline.py`), whose folder `--resnet_run` names.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import pathlib
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from fer_jax.errors import UserError
from tfds_builders.synthetic_faces.examples import BASIC_NAMES, CHUNK, draw
from tfds_builders.synthetic_faces.expressions import RECIPES
from tfds_builders.synthetic_faces.landmark_check import landmark_errors
from tfds_builders.synthetic_faces.plan import Plan


def draw_split(plan: Plan, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images, uint8 [N, H, W, 3], and labels [N] of a whole split."""
    images, labels = [], []
    for start in range(0, plan.count(split), CHUNK):
        scene, picture = draw(plan, split, np.arange(start, min(start + CHUNK, plan.count(split))))
        images.append(picture.image)
        labels += [BASIC_NAMES.index(RECIPES[c].dominant) for c in scene.category]
    return np.concatenate(images), np.array(labels)


def images_per_second(plan: Plan, count: int = 512) -> float:
    """Returns how many pictures one core draws per second of its own time (without encoding)."""
    draw(plan, "train", np.arange(CHUNK))
    start = time.process_time()
    for first in range(0, count, CHUNK):
        draw(plan, "train", np.arange(first, first + CHUNK))
    return count / (time.process_time() - start)


def pixels(images: np.ndarray, side: int = 48) -> np.ndarray:
    """Returns gray pixels of the shrunken pictures, [N, side * side]."""
    shrunk = [Image.fromarray(i).convert("L").resize((side, side), Image.Resampling.BOX) for i in images]
    return np.stack([np.asarray(i, np.float32).ravel() / 255 for i in shrunk])


def statistics(images: np.ndarray, bins: int = 16) -> np.ndarray:
    """Returns mean, deviation and histogram of every channel: what a shortcut without shapes could use."""
    x = images.astype(np.float32) / 255
    level = np.minimum((x * bins).astype(int), bins - 1)
    histogram = [(level == k).mean(axis=(1, 2)) for k in range(bins)]
    return np.concatenate([x.mean(axis=(1, 2)), x.std(axis=(1, 2)), *histogram], axis=1)


def linear_accuracy(train: np.ndarray, y: np.ndarray, test: np.ndarray, z: np.ndarray, c: float) -> float:
    """Returns the test accuracy of multinomial logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=60))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it need not converge to the last digit
        return float(model.fit(train, y).score(test, z))


def boosted_accuracy(train: np.ndarray, y: np.ndarray, test: np.ndarray, z: np.ndarray) -> float:
    """Returns the test accuracy of boosted trees: a stronger reader of the statistics."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return float(HistGradientBoostingClassifier(max_iter=60, random_state=0).fit(train, y).score(test, z))


def resnet_result(run: str) -> dict[str, Any]:
    """Returns the accuracy that a finished run of the harness wrote.

    Raises:
      UserError: the folder holds no results.
    """
    path = pathlib.Path(run) / "results.json"
    if not path.exists():
        raise UserError(f"no results.json in {run}: train there first, with run.py --workdir={run}")
    results = json.loads(path.read_text(encoding="utf-8"))
    keys = (
        "experiment",
        "dataset",
        "accuracy",
        "epochs",
        "wall_seconds",
        "images_per_second",
        "seed",
        "device",
    )
    return {key: results[key] for key in keys if key in results}


def measure(plan: Plan, faces: int = 300) -> dict[str, Any]:
    """Returns every number that needs no trained network."""
    result: dict[str, Any] = {"plan": dataclasses.asdict(plan)}
    result["images_per_second_one_core"] = round(images_per_second(plan), 1)
    result["landmarks"] = landmark_errors(faces, plan.size)
    (train, y), (test, z) = draw_split(plan, "train"), draw_split(plan, "test")
    a, b = statistics(train), statistics(test)
    result["statistics"] = {
        "chance": 1 / len(BASIC_NAMES),
        "logistic": linear_accuracy(a, y, b, z, 1.0),
        "boosted_trees": boosted_accuracy(a, y, b, z),
    }
    a, b = pixels(train), pixels(test)
    result["linear_on_pixels"] = {str(c): linear_accuracy(a, y, b, z, c) for c in (1e-4, 1e-3, 1e-2)}
    return result


def as_table(result: Mapping[str, Any]) -> str:
    """The claims and what was measured, as markdown."""
    rows = [
        ("drawing, one core", f"{result['images_per_second_one_core']:.0f} images/s"),
        (
            "linear classifier on pixels, the best of three penalties",
            _percent(max(result["linear_on_pixels"].values())),
        ),
        ("logistic regression on pixel statistics alone", _percent(result["statistics"]["logistic"])),
        ("boosted trees on pixel statistics alone", _percent(result["statistics"]["boosted_trees"])),
        ("guessing", _percent(result["statistics"]["chance"])),
        ("landmarks against the drawn shapes, largest error", f"{_worst(result['landmarks']):.2f} pixels of 64"),
    ]
    if "resnet18" in result:
        run = result["resnet18"]
        rows.insert(2, (f"ResNet-18, {run['epochs']:.0f} epochs", _percent(run["accuracy"])))
    return "| claim | measured |\n|---|---|\n" + "".join(f"| {what} | {value} |\n" for what, value in rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _worst(landmarks: Mapping[str, Mapping[str, float]]) -> float:
    return max(part["max"] for part in landmarks.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=os.path.expanduser, default="results/synthetic_faces.json")
    parser.add_argument(
        "--resnet_run", type=os.path.expanduser, default="", help="work directory of a finished ResNet-18 run"
    )
    args = parser.parse_args()
    if importlib.util.find_spec("sklearn") is None:
        raise UserError("this needs scikit-learn: pip install 'fer_jax[verify]'")
    out = pathlib.Path(args.out)
    resnet18 = resnet_result(args.resnet_run) if args.resnet_run else None  # a wrong folder is said at once
    result = measure(Plan())
    if resnet18 is not None:
        result["resnet18"] = resnet18
    elif out.exists():
        old = json.loads(out.read_text(encoding="utf-8"))
        result |= {key: old[key] for key in ("resnet18",) if key in old}
    text = json.dumps(result, indent=2)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(as_table(result), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    try:
        main()
    except UserError as mistake:
        sys.exit(f"error: {mistake}")
