"""FDRL's claim: a latent feature stands for an action-aware part of an expression (Ruan et al., CVPR 2021, section 3).

    python -m experiments.claims.fdrl

Ground truth: the action units that each synthetic face was drawn with. For each action unit a linear readout is fitted
on every single latent feature (128 numbers) and scored by the area under its ROC curve on other people; the unit counts
with the feature that reads it best, chosen where the readouts were fitted. The control is one fully connected layer as
wide as all latent features, cut into as many pieces of the same size: what a piece of a common hidden layer reads.
`specialisation` is how far the best feature is above the mean of the others: a feature that stands for a part should
know it better.
"""

from __future__ import annotations

import sys

import numpy as np

from experiments.claims.trial import Comparison, Measures, Trial, main, roc_auc
from experiments.presets import VARIANTS
from fer_jax.config.fields import Config, variant_config
from fer_jax.data.sources.source import load
from fer_jax.inference.trained import Trained

PRESENT = 0.1  # intensity from which an action unit counts as present
RARE = 0.05  # action units in a smaller share of the faces, or of those without, are left out


def arm(seed: int, modules: str) -> Config:
    """The synthetic recipe with a narrow ResNet-18, cut to the epochs that a trial has time for."""
    config = variant_config("claims/fdrl", "fdrl", "synthetic", VARIANTS)
    config.seed = seed
    config.model.modules = modules
    config.model.width = 16
    config.train.epochs = 10.0
    return config


def measure(arm_name: str, model: Trained) -> Measures:
    """Reads action units out of single latent features, fitted on half of the test people, scored on the others."""
    del arm_name
    test = load(model.config.data, "test", training=False)
    latent = model.outputs(test, ["latent"])["latent"]  # [N, M, D]
    return readout(latent, test.arrays["action_units"], test.arrays["subject"])


def readout(latent: np.ndarray, action_units: np.ndarray, subject: np.ndarray) -> Measures:
    """`auc` of the best feature and its `specialisation`, means over the action units.

    Args:
        latent: [N, M, D]. action_units: intensities [N, A]. subject: [N], whose faces these are.
    """
    present = action_units > PRESENT
    share = present.mean(axis=0)
    present = present[:, (share >= RARE) & (share <= 1 - RARE)]
    people = np.random.default_rng(0).permutation(np.unique(subject))
    fitted = np.isin(subject, people[: len(people) // 2])
    fit_auc, auc = np.empty((2, latent.shape[1], present.shape[1]))
    for j in range(latent.shape[1]):
        x, y = _standard(latent[fitted, j], latent[fitted, j]), present[fitted].astype(float)
        probe = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ (y - y.mean(axis=0)))  # ridge regression
        for rows, scores in ((fitted, fit_auc), (~fitted, auc)):
            values = _standard(latent[rows, j], latent[fitted, j]) @ probe
            scores[j] = [roc_auc(present[rows, a], values[:, a]) for a in range(present.shape[1])]
    best = fit_auc.argmax(axis=0)
    columns = np.arange(present.shape[1])
    others = (auc.sum(axis=0) - auc[best, columns]) / (len(auc) - 1)
    return {"auc": auc[best, columns].mean(), "specialisation": (auc[best, columns] - others).mean()}


def _standard(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    return (values - of.mean(axis=0)) / np.maximum(of.std(axis=0), 1e-6)


TRIAL = Trial(
    name="fdrl",
    claim="FDRL: a single latent feature reads out an action unit better than a piece of a fully connected layer.",
    arms={"FDRL": lambda seed: arm(seed, "both"), "fully connected": lambda seed: arm(seed, "wide")},
    measure=measure,
    comparisons=(
        Comparison("auc", "FDRL", "fully connected"),
        Comparison("specialisation", "FDRL", "fully connected"),
        Comparison("accuracy", "FDRL", "fully connected", scale=100, unit=" %"),
    ),
)

if __name__ == "__main__":
    sys.exit(main(TRIAL))
