"""ACNN's claim: gates close on patches that are covered, and so occlusion costs less (Li et al., IEEE T-IP 2019).

    python -m experiments.claims.acnn

Ground truth: which pixels an object hides. Both arms are gACNN on the same trunk, trained on every face twice, as it is
and behind an object of the training bank; 'without gates' has every alpha at 1. They are scored on test faces as they
are and behind objects of kinds that training never saw. Nobody tells the gates what is covered. Their measures compare
the faces behind objects, unit by unit (each gate has its own level), and are means over the 24 patches:

- `spearman`: rank correlation of 1 - alpha with the covered fraction of the patch;
- `auc`: whether a lower gate tells patches that are at least half covered from those that are not covered at all;
- `alpha_drop`: how far gates of patches that are at least 70 % covered fall from what they are on the same face without
  the object, `alpha_drop_elsewhere`, the same of patches that are not covered at all, and `dropped`, the share of the
  former that fall at all;
- `..._before`: the same of the network before training, and `auc_gained`, what training added to `auc`.

They are held against nothing known (0, or 0.5), and against what would make a gate useful: an `auc` and a `dropped` of
0.65, a fall of 0.05, and elsewhere less than half of that.
"""

from __future__ import annotations

import sys

import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from experiments import acnn
from experiments.claims.trial import Comparison, Measures, Trial, main, roc_auc
from fer_jax.config.fields import Config
from fer_jax.data.augment.preprocessing import central
from fer_jax.data.corrupt.occlusion import behind_test_objects
from fer_jax.data.sources.source import Source, load
from fer_jax.inference.trained import Trained
from fer_jax.methods.acnn import POINTS, crops, stride_of
from fer_jax.training.setup import make_setup

HALF, MOST = 0.5, 0.7  # of a patch: covered; as good as gone
GATED = "gACNN"


def arm(seed: int, gates: bool) -> Config:
    """The synthetic recipe with a narrower network, cut to the epochs that a trial has time for."""
    config = acnn.get_config("synthetic")
    config.experiment = "claims/acnn"
    config.seed = seed
    config.model.gates = gates
    config.model.width = 4
    config.train.batch_size = 32  # more steps, of which gates need many
    config.train.epochs = 2.0
    config.optimizer.learning_rate = 2e-3
    config.evaluation.occluded = False  # `measure` does it
    return config


def measure(arm_name: str, model: Trained) -> Measures:
    """Accuracy behind objects and what it costs; for the gated arm what its gates know of the objects."""
    clean = load(model.config.data, "test", training=False)
    covered = behind_test_objects(clean)
    outputs = {name: model.outputs(source, ["alpha", "points"]) for name, source in _both(clean, covered)}
    accuracy, occluded = (
        float((outputs[name]["logits"].argmax(axis=-1) == clean.arrays["label"]).mean()) for name in outputs
    )
    measures = {"occluded_accuracy": occluded, "accuracy_lost": accuracy - occluded}
    if arm_name != GATED:
        return measures
    coverage = covered_fractions(model, covered, outputs["covered"]["points"])
    measures |= gates_against_coverage(outputs["clean"]["alpha"], outputs["covered"]["alpha"], coverage)
    untrained = make_setup(model.config).init().variables()
    before = {name: model.outputs(source, ["alpha"], untrained) for name, source in _both(clean, covered)}
    at_first = gates_against_coverage(before["clean"]["alpha"], before["covered"]["alpha"], coverage)
    measures |= {f"{name}_before": value for name, value in at_first.items()}
    return measures | {"auc_gained": measures["auc"] - measures["auc_before"]}


def _both(clean: Source, covered: Source) -> tuple[tuple[str, Source], ...]:
    return ("clean", clean), ("covered", covered)


def covered_fractions(model: Trained, covered: Source, points: np.ndarray) -> np.ndarray:
    """Returns the fraction of each patch that is covered, [N, 24], of what of it lies inside the image.

    Args:
        model: says how large the network's input and its patches are.
        covered: with the field `occlusion`.
        points: [N, 24, 2] in pixels of the network's input.
    """
    task = model.task
    masks = 255 * covered.arrays["occlusion"][..., None].astype(np.uint8)
    seen = np.asarray(central(jnp.asarray(masks), task.preprocessing)) / 255
    return patch_coverage(seen[..., 0], points, stride_of(task.model.cut), task.model.patch)


def patch_coverage(masks: np.ndarray, points: np.ndarray, stride: int, patch: int) -> np.ndarray:
    """Returns the covered fraction [N, P] of each patch, from what is covered of each pixel, [N, S, S] in 0 .. 1."""
    count, side, _ = masks.shape
    cells = side // stride
    f = masks.reshape(count, cells, stride, cells, stride).mean(axis=(2, 4))[..., None].astype(np.float32)
    where = jnp.asarray(points, jnp.float32)
    hidden, whole = (
        np.asarray(crops(jnp.asarray(x), where, stride, patch)).sum(axis=(2, 3, 4)) for x in (f, np.ones_like(f))
    )
    return hidden / np.maximum(whole, 1)


def gates_against_coverage(clean: np.ndarray, alpha: np.ndarray, coverage: np.ndarray) -> Measures:
    """What gates know of the objects.

    Args:
        clean, alpha: the gates [N, 24 or 25] on faces as they are, and behind objects.
        coverage: fraction [N, 24] of each patch that is covered.
    """
    clean, alpha = clean[:, :POINTS], alpha[:, :POINTS]
    drop, gone, free = clean - alpha, coverage >= MOST, coverage == 0
    correlations, areas = [], []
    for shut, hidden in zip(1 - alpha.T, coverage.T, strict=True):
        correlations.append(spearmanr(shut, hidden)[0])
        told = (hidden >= HALF) | (hidden == 0)
        areas.append(roc_auc(hidden[told] >= HALF, shut[told]))
    return {
        "spearman": float(np.mean(correlations)),
        "auc": float(np.mean(areas)),
        "alpha_drop": float(drop[gone].mean()),
        "alpha_drop_elsewhere": float(drop[free].mean()),
        "dropped": float((drop[gone] > 0).mean()),
    }


TRIAL = Trial(
    name="acnn",
    claim="ACNN: gates learn, untold, to close on covered patches, and so occlusion costs less accuracy.",
    arms={GATED: lambda seed: arm(seed, True), "without gates": lambda seed: arm(seed, False)},
    measure=measure,
    comparisons=(
        Comparison("accuracy_lost", GATED, "without gates", better="lower", scale=100, unit=" points"),
        Comparison("occluded_accuracy", GATED, "without gates", scale=100, unit=" %"),
        Comparison("accuracy", GATED, "without gates", scale=100, unit=" %"),
        Comparison("spearman", GATED, 0.0),
        Comparison("auc", GATED, 0.5),
        Comparison("auc", GATED, 0.65),
        Comparison("auc_gained", GATED, 0.0),
        Comparison("dropped", GATED, 0.65),
        Comparison("alpha_drop", GATED, 0.0),
        Comparison("alpha_drop", GATED, 0.05),
        Comparison("alpha_drop_elsewhere", GATED, 0.025, better="lower"),
    ),
)

if __name__ == "__main__":
    sys.exit(main(TRIAL))
