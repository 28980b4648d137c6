"""FDRL's claim: an expression is a sum of shared, action-like latent features, weighted and related (CVPR 2021).

    python -m experiments.claims.fdrl        # five seeds: about 130 minutes of one CPU core

Arms: the ResNet with one linear layer ('none'), with one fully connected layer of as many parameters as FDRL, cut into
as many pieces ('wide'), with the sum of the pieces without relations and without compactness ('pieces'), and FDRL with
importances that are means or lie on a simplex. Ground truth: the action units that each face was drawn with.

- `length auc`: how well the length of one latent feature, or piece, tells an action unit: that of the feature and the
  sign that tell it best on half of the people, on the other half; `alpha auc`, the same of the importance alpha_j;
- `cka`: how alike two latent features are (linear CKA of Kornblith et al. 2019, mean over pairs);
- `center accuracy`: of the nearest class center on the importances alone, as L_D wants it (chance is 1 / 7);
- `saturated`: share of edges above 0.99, where Inter-RM is a constant graph (it should fall below 0.5);
- `drop spread`: standard deviation over classes and features of the recall lost without a feature, in points.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.claims.statistics import auc_values, ratio_values, roc_auc
from experiments.claims.trial import AUC, POINTS, Comparison, Measures, Trial, main
from experiments.presets import VARIANTS
from fer_jax.config.fields import Config, assign, variant_config
from fer_jax.data.sources.source import Source
from fer_jax.inference.trained import Trained
from fer_jax.methods.fdrl import SATURATED

PRESENT = 0.1  # intensity from which an action unit counts as present
RARE = 0.05  # action units in a smaller share of the faces, or of those without, are left out
DROPPED_FACES = 1500  # on which features are left out
ARMS = {
    "none": {"model.modules": "none"},
    "wide": {"model.modules": "wide", "model.feature_dim": 250},  # as many parameters as FDRL, but for some 200
    "pieces": {"model.modules": "fdn", "loss.weights.compactness": 0.0},
    "FDRL": {"model.modules": "both"},
    "FDRL, simplex": {"model.modules": "both", "model.alpha": "simplex"},
}


def arm(seed: int, fields: Mapping[str, Any]) -> Config:
    """The synthetic recipe with the fields of an arm."""
    del seed
    config = variant_config("fdrl", "fdrl", "synthetic", VARIANTS)
    for field, value in fields.items():
        assign(config, field, value)
    return config


def measure(name: str, model: Trained, test: Source) -> Measures:
    """What the latent features and their importances know; nothing of an arm that has no latent features."""
    del name
    outputs = model.outputs(test, ["latent", "importance", "omega"])
    if "latent" not in outputs:
        return {}
    latent, subject = outputs["latent"], test.arrays["subject"]  # [N, M, D]
    units = test.arrays["action_units"]
    found = {"length auc": unit_auc(np.linalg.norm(latent, axis=-1), units, subject), "cka": alikeness(latent)}
    if "importance" in outputs:
        found["alpha auc"] = unit_auc(outputs["importance"], units, subject)
        found["center accuracy"] = nearest_center(outputs["importance"], test.arrays["label"], subject)
        omega = outputs["omega"]
        found["saturated"] = float((omega > SATURATED).sum() / (omega.size - omega.shape[0] * omega.shape[1]))
        found["drop spread"] = drop_spread(model, test.select(np.arange(min(DROPPED_FACES, len(test)))))
    return found


def fitted(subject: np.ndarray) -> np.ndarray:
    """Returns which examples, bool [N], are of the half of the people that something is fitted on."""
    people = np.random.default_rng(0).permutation(np.unique(subject))
    return np.isin(subject, people[: len(people) // 2])


def unit_auc(scalars: np.ndarray, action_units: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """Returns values [N] whose mean is the mean over action units of the area of the scalar that tells it best.

    Args:
        scalars: [N, M]. action_units: intensities [N, A]. subject: [N], whose faces these are.
    """
    present, first = action_units > PRESENT, fitted(subject)
    share = present.mean(axis=0)
    values = []
    for unit in present[:, (share >= RARE) & (share <= 1 - RARE)].T:
        areas = np.array([roc_auc(unit[first], scalar) for scalar in scalars[first].T])
        best = int(np.abs(areas - 0.5).argmax())
        values.append(auc_values(unit, np.sign(areas[best] - 0.5) * scalars[:, best], ~first))
    return np.mean(values, axis=0)


def alikeness(latent: np.ndarray) -> float:
    """Returns the mean linear CKA over pairs of the M latent features [N, M, D]."""
    centered = np.moveaxis(latent - latent.mean(axis=0), 1, 0).astype(np.float64)  # [M, N, D]
    gram = np.array([[np.linalg.norm(a.T @ b) ** 2 for b in centered] for a in centered])
    length = np.sqrt(np.maximum(np.diag(gram), 1e-12))
    return float((gram / np.outer(length, length))[~np.eye(len(gram), dtype=bool)].mean())


def nearest_center(alpha: np.ndarray, label: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """Returns values [N] whose mean is the accuracy of the nearest class mean of alpha [N, M], on other people."""
    first, known = fitted(subject), np.unique(label)
    centers = np.array([alpha[first & (label == c)].mean(axis=0) for c in known])
    nearest = known[np.linalg.norm(alpha[:, None] - centers, axis=-1).argmin(axis=1)]
    return ratio_values((nearest == label) * ~first, (~first).astype(float))


def drop_spread(model: Trained, test: Source) -> float:
    """Returns the standard deviation of what each class's recall loses without each latent feature, in points."""
    label, count = test.arrays["label"], model.model.num_features

    def recalls(mask: np.ndarray) -> np.ndarray:
        arrays: Mapping[str, np.ndarray] = {**test.arrays, "feature_mask": np.tile(mask, (len(test), 1))}
        right = model.logits(dataclasses.replace(test, arrays=arrays)).argmax(axis=1) == label
        return np.array([right[label == c].mean() for c in np.unique(label)])

    lost = recalls(np.ones(count)) - np.array([recalls(1.0 - row) for row in np.eye(count)])
    return float(100 * lost.std())


TRIAL = Trial(
    name="fdrl",
    claim="FDRL: decomposing a face into latent features, weighing and relating them classifies expressions better.",
    arms={name: functools.partial(arm, fields=fields) for name, fields in ARMS.items()},
    measure=measure,
    control="none",
    comparisons=(
        Comparison("FDRL is right on more faces than its ResNet alone", "accuracy", "FDRL", "none", **POINTS),
        Comparison(
            "FDRL is right on more faces than one fully connected layer of as many parameters",
            *("accuracy", "FDRL", "wide"),
            **POINTS,
        ),
        Comparison(
            "The length of a latent feature tells an action unit better than the length of a piece of that layer",
            *("length auc", "FDRL", "wide"),
            **AUC,
        ),
        Comparison(
            "The latent features are less alike than the pieces of that layer",
            *("cka", "FDRL", "wide"),
            margin=0.05,
            better="lower",
            unit="CKA",
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(TRIAL))
