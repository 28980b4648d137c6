"""ACNN's claim: gates close on patches that are covered, and so occlusion costs less (Li et al., IEEE T-IP 2019).

    python -m experiments.claims.acnn        # five seeds: about 190 minutes of one CPU core

Ground truth: which pixels an object hides. Every arm is trained on every face twice, as it is and behind an object of
the training bank: gACNN, the same with every alpha at 1 ('no gates'), the same with scales and biases in every
normalization ('affine'; the gate's last one then decides how far gates spread), and the VGG-16 that the paper compares
with. 'told' is the positive control: in training and in the test each alpha is the share of its patch that no object
hides. A patch is a quarter of the face's side. They are tested on faces as they are and behind objects of kinds that
training never saw; nobody tells the gates what is covered.

- `occluded`: accuracy behind objects; `kept`, that as a share of the accuracy without them;
- `gate drop`: how much farther gates of patches that are at least 70 % covered fall from what they are on the same face
  without the object than gates of patches that are not covered at all;
- `gate auc`: whether a lower gate tells patches that are at least half covered from those that are not, unit by unit
  (each has its own level); `auc gained`, what training added to it.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np

from experiments import acnn, psr
from experiments.claims.statistics import auc_values, ratio_values
from experiments.claims.trial import AUC, POINTS, Comparison, Measures, Trial, main
from fer_jax.config.fields import Config
from fer_jax.data.corrupt.occlusion import behind_test_objects
from fer_jax.data.sources.source import Source
from fer_jax.inference.trained import Trained
from fer_jax.methods.acnn import POINTS as PATCHES
from fer_jax.training.setup import make_setup

HALF, MOST = 0.5, 0.7  # of a patch: covered; as good as gone
SHARE: dict[str, Any] = {"margin": 0.02, "scale": 100.0, "unit": "% of the accuracy without objects"}
GATED, OPEN, AFFINE, TOLD, VGG = "gates", "no gates", "gates, affine", "told", "VGG"


def arm(seed: int, gates: bool = True, affine: bool = False, told: bool = False) -> Config:
    """The synthetic recipe with patches of a quarter of the side on the map after conv2_2."""
    del seed
    config = acnn.get_config("synthetic")
    config.model.gates, config.model.affine, config.model.told = gates, affine, told
    config.data.occlusion_masks = told
    config.model.cut, config.model.patch = "conv2_2", 6
    return _steps(config)


def vgg(seed: int) -> Config:
    """VGG-16 of the same width with the head of PSR's one network, on the same faces."""
    del seed
    config = psr.get_config("synthetic")
    config.data.occluded_copies = True
    config.data.label_smoothing, config.data.smoothing_prior = 0.0, "uniform"
    config.model.multiples, config.model.stn, config.model.width = (1,), False, 8
    config.optimizer.groups = ()
    return _steps(config)


def _steps(config: Config) -> Config:
    config.train.batch_size = 32
    config.train.epochs = 6.0
    config.optimizer.learning_rate = 2e-3
    config.evaluation.occluded = False  # `measure` does it
    return config


def measure(name: str, model: Trained, test: Source) -> Measures:
    """Accuracy behind objects; for arms with gates what these know of the objects."""
    covered, label = behind_test_objects(test), test.arrays["label"]
    clean, behind = (model.outputs(source, ["alpha", "coverage"]) for source in (test, covered))
    right = [(outputs["logits"].argmax(axis=1) == label).astype(float) for outputs in (clean, behind)]
    found = {"occluded": right[1], "kept": ratio_values(right[1], right[0])}
    if name not in (GATED, AFFINE):
        return found
    untrained = make_setup(model.config).init().variables()
    before = model.outputs(covered, ["alpha"], untrained)["alpha"]
    coverage = behind["coverage"]
    after = gate_auc(behind["alpha"], coverage)
    return found | {
        "gate drop": gate_drop(clean["alpha"], behind["alpha"], coverage),
        "gate auc": after,
        "auc gained": after - gate_auc(before, coverage),
    }


def gate_drop(clean: np.ndarray, alpha: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Returns values [N] whose mean is the mean fall of gates of covered patches less that of free ones.

    Args:
        clean, alpha: the gates [N, 24 or 25] on faces as they are, and behind objects.
        coverage: fraction [N, 24] of each patch that is covered.
    """
    drop = (clean - alpha)[:, :PATCHES]
    falls = [ratio_values((drop * part).sum(axis=1), part.sum(axis=1)) for part in (coverage >= MOST, coverage == 0)]
    return falls[0] - falls[1]


def gate_auc(alpha: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Returns values [N] whose mean is the mean over units of the area of 1 - alpha for covered against free."""
    units = zip(1 - alpha.T[:PATCHES], coverage.T, strict=True)
    return np.mean([auc_values(h >= HALF, shut, (h >= HALF) | (h == 0)) for shut, h in units], axis=0)


TRIAL = Trial(
    name="acnn",
    claim="ACNN: gates learn, untold, to close on covered patches, and so occlusion costs less accuracy.",
    arms={
        GATED: arm,
        OPEN: functools.partial(arm, gates=False),
        AFFINE: functools.partial(arm, affine=True),
        TOLD: functools.partial(arm, gates=False, told=True),
        VGG: vgg,
    },
    measure=measure,
    control=OPEN,
    comparisons=(
        Comparison("Behind objects gACNN is right on more faces than without gates", "occluded", GATED, OPEN, **POINTS),
        Comparison("Behind objects gACNN keeps more of its accuracy than VGG-16", "kept", GATED, VGG, **SHARE),
        Comparison(
            "Gates of covered patches fall, and others do not", "gate drop", GATED, 0.0, margin=0.05, unit="alpha"
        ),
        Comparison("Training teaches gates to tell covered patches from free ones", "auc gained", GATED, 0.0, **AUC),
    ),
    attainable=Comparison("Gates that know what is covered are right on more faces", "occluded", TOLD, OPEN, **POINTS),
)

if __name__ == "__main__":
    sys.exit(main(TRIAL))
