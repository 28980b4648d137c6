"""FAN's claim: attention weighs the frames that show the expression, and so beats fusing their scores (ICIP 2019).

    python -m experiments.claims.fan

Ground truth: how strong the expression is in every frame that was drawn. The clips go from neutral over the apex back
to neutral; in some of them something passes before the face, or the person leaves the picture. All arms begin with the
same ResNet, which has learned expressions from still faces (the paper's: from FER+), see as many frames in a step, and
make as many steps: 'score fusion' learns from single frames, the others from three of a clip. 'mean pooling' is the
control without any attention. The people of the test clips are in neither training set.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from experiments import baseline, fan
from experiments.claims.trial import Comparison, Measures, Trial, main
from fer_jax.config.fields import Config
from fer_jax.data.sources.source import Source, load
from fer_jax.errors import UserError
from fer_jax.inference.trained import Trained

FRAMES_IN_A_STEP = 72
STEPS = 420
OCCLUDED = 0.02  # of the picture: something stands before the face
ARMS = {"relation": "relation", "self": "self", "mean pooling": "mean", "score fusion": "score_fusion"}


def stills() -> Config:
    """What all arms begin with: the baseline on still faces."""
    config = baseline.get_config("synthetic")
    config.train.epochs = 9.0
    return _narrow(config)


def arm(seed: int, attention: str) -> Config:
    """The synthetic recipe, cut to the steps that a trial has time for."""
    config = _narrow(fan.get_config("synthetic"))
    config.seed = seed
    config.model.attention = attention
    config.train.batch_size = FRAMES_IN_A_STEP // (1 if attention == "score_fusion" else config.data.clip_frames)
    # Epochs of clips and of single frames differ: the steps are what all arms have in common.
    config.train.epochs = 1000.0
    config.train.max_steps = STEPS
    config.train.eval_every_epochs = 1000.0
    config.selection.rule = "last"
    return config


def _narrow(config: Config) -> Config:
    config.experiment = "claims/fan"
    config.model.depth = 10
    config.model.width = 16
    config.data.image_size = 40
    return config


def measure(arm_name: str, model: Trained) -> Measures:
    """What the weights of the test clips' frames have to do with what the frames show."""
    del arm_name
    test = load(model.config.data, "test", training=False)
    return attended(model.outputs(test, ["frame_weights"])["frame_weights"], test)


def attended(weights: np.ndarray, clips: Source) -> Measures:
    """`spearman` of weight and intensity, `occluded` and `onset` weights against others, `masked` weight.

    Args:
        weights: of all frames, one clip after the other.
        clips: with `frame_intensity` and `occluded_fraction`. Neutral ones have no intensity and take no part in what
            is about it.

    Raises:
        UserError: where a masked frame has a weight.
    """
    fields = clips.fields()
    found: dict[str, list[float]] = {"spearman": [], "apex": [], "onset": [], "occluded": [], "free": []}
    masked, first = 0.0, 0
    for length in fields["length"].tolist():
        rows = slice(first, first + length)
        first += length
        mask, w = fields["frame_mask"][rows], weights[rows]
        masked += float(w[~mask].sum())
        if mask.sum() < 2:
            continue
        relative = w[mask] * mask.sum()  # 1 is a fair share
        intensity, covered = fields["frame_intensity"][rows][mask], fields["occluded_fraction"][rows][mask] > OCCLUDED
        if covered.any() and not covered.all():
            found["occluded"].append(relative[covered].mean())
            found["free"].append(relative[~covered].mean())
        if np.ptp(intensity) > 0:
            if np.ptp(w[mask]) > 0:
                correlation: Any = spearmanr(w[mask], intensity)
                found["spearman"].append(float(correlation.statistic))
            strong = intensity > 0.9 * intensity.max()
            found["apex"].append(relative[strong].mean())
            found["onset"].append(relative[~strong].mean())
    if masked:
        raise UserError(f"frames without a face have a weight of {masked:g} in all: the mask does not hold")
    means = {name: float(np.mean(values)) if values else 0.0 for name, values in found.items()}
    return {
        "spearman": means["spearman"],
        "apex to others": means["apex"] / max(means["onset"], 1e-9),
        "occluded to free": means["occluded"] / max(means["free"], 1e-9),
        "masked": masked,
    }


TRIAL = Trial(
    name="fan",
    claim="FAN: attention weighs the frames that show the expression, and so beats fusing the frames' scores.",
    arms={name: functools.partial(arm, attention=attention) for name, attention in ARMS.items()},
    measure=measure,
    start=stills,
    comparisons=(
        Comparison("accuracy", "relation", "score fusion", scale=100, unit=" %"),
        Comparison("accuracy", "relation", "mean pooling", scale=100, unit=" %"),
        Comparison("accuracy", "relation", "self", scale=100, unit=" %"),
        Comparison("accuracy", "self", "score fusion", scale=100, unit=" %"),
        Comparison("spearman", "relation", 0.0),
        Comparison("apex to others", "relation", 1.0),
        Comparison("occluded to free", "relation", 1.0, better="lower"),
    ),
)

if __name__ == "__main__":
    sys.exit(main(TRIAL))
