"""FAN's claim: attention weighs the frames that show the expression, and so beats fusing their scores (ICIP 2019).

    python -m experiments.claims.fan        # ten seeds: about 145 minutes of one CPU core

Ground truth: how strong the expression is in every frame that was drawn. The clips go from neutral over the apex back
to neutral; in some of them something passes before the face, or the person leaves the picture. All arms begin with the
same ResNet, which has learned expressions from still faces (the paper's: from FER+), see as many frames in a step, and
make as many steps: 'score fusion' learns from single frames, the others from three of a clip. 'mean pooling' has no
attention; it and 'score fusion, dropout' have FAN's dropout before the classifier. The people of the test clips are in
neither training set.

- `spearman`: rank correlation of weight and intensity in a clip, the mean over expressive clips: 0 for weights that are
  equal or know nothing of the intensity, 1 for those that rank all frames by it;
- `object lowers`: by how much the weight of the clip's strongest frame falls when an object is put before the face in
  it, with all else as it was; 1 is a fair share; `accuracy behind it`: of the clip with the object;
- `told`: what accuracy gains if the features are weighed by the true intensity instead, the positive control.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from experiments import baseline, fan
from experiments.claims.statistics import ratio_values
from experiments.claims.trial import POINTS, Comparison, Measures, Trial, main
from fer_jax.config.fields import Config
from fer_jax.data.corrupt.occlusion import TEST_SEED, paint
from fer_jax.data.sources.source import Source
from fer_jax.inference.trained import Trained

FRAMES_IN_A_STEP = 72
STEPS = 420
DROPOUT = 0.6  # before the classifier of relation attention
FRAMES = 12  # of every synthetic clip
POOLED, FUSION, DROPPED = "mean pooling", "score fusion", "score fusion, dropout"
RANK: dict[str, Any] = {"margin": 0.05, "unit": "rank correlation"}
SHARE: dict[str, Any] = {"margin": 0.1, "unit": "of a fair share"}


def stills(seed: int) -> Config:
    """What all arms begin with: the baseline on still faces."""
    del seed
    return _narrow(baseline.get_config("synthetic"))


def arm(seed: int, attention: str, **dropout: float) -> Config:
    """The synthetic recipe, cut to the steps that a trial has time for; `dropout` are fields of the model."""
    del seed
    config = _narrow(fan.get_config("synthetic"))
    config.model.update(attention=attention, **dropout)
    config.train.batch_size = FRAMES_IN_A_STEP // (1 if attention == "score_fusion" else config.data.clip_frames)
    # Epochs of clips and of single frames differ: the steps are what all arms have in common.
    config.train.epochs = 1000.0
    config.train.max_steps = STEPS
    config.train.eval_every_epochs = 1000.0
    config.selection.rule = "last"
    return config


def _narrow(config: Config) -> Config:
    config.model.depth = 10
    config.model.width = 16
    config.data.image_size = 40
    return config


def measure(name: str, model: Trained, test: Source) -> Measures:
    """What the weights of the test clips' frames have to do with what the frames show."""
    names, label = ["frame_weights", "frame_features"], test.arrays["label"]
    strongest = strongest_frames(test)
    outputs, behind = (model.outputs(clips, names) for clips in (test, with_objects(test, strongest)))
    seen = (strongest >= 0).astype(float)
    lowered = (outputs["frame_weights"] - behind["frame_weights"])[strongest] * _faces(test) * seen
    found = {
        "spearman": correlations(outputs["frame_weights"], test),
        "object lowers": ratio_values(lowered, seen),
        "accuracy behind it": (behind["logits"].argmax(axis=1) == label).astype(float),
    }
    if name == POOLED:
        right, told = (
            (logits.argmax(axis=1) == label).astype(float)
            for logits in (outputs["logits"], told_logits(model, outputs["frame_features"], test))
        )
        found["told"] = told - right
    return found


def _by_clip(values: np.ndarray) -> np.ndarray:
    """Returns values of frames [N T, ...] as [N, T, ...]; synthetic clips are equally long."""
    return values.reshape(-1, FRAMES, *values.shape[1:])


def _faces(test: Source) -> np.ndarray:
    return _by_clip(test.frames["frame_mask"]).sum(axis=1)


def correlations(weights: np.ndarray, test: Source) -> np.ndarray:
    """Returns values [N] whose mean is the mean rank correlation of weight and intensity of the faces of a clip.

    Equal weights correlate with nothing (0); clips without expression are left out.
    """
    found, counted = np.zeros((2, len(test)))
    fields = (_by_clip(values) for values in (weights, test.frames["frame_intensity"], test.frames["frame_mask"]))
    for clip, (weight, intensity, mask) in enumerate(zip(*fields, strict=True)):
        counted[clip] = mask.sum() > 1 and np.ptp(intensity[mask]) > 0
        if counted[clip] and np.ptp(weight[mask]) > 0:
            result: Any = spearmanr(weight[mask], intensity[mask])
            found[clip] = result.statistic
    return ratio_values(found, counted)


def strongest_frames(test: Source) -> np.ndarray:
    """Returns int [N], the place among all frames of each clip's strongest one that nothing hides; -1 without one."""
    intensity, mask, covered = (
        _by_clip(test.frames[name]) for name in ("frame_intensity", "frame_mask", "occluded_fraction")
    )
    free = mask & (covered == 0)
    strongest = np.where(free, intensity, -1.0).argmax(axis=1)
    return np.where(free.any(axis=1), test.arrays["start"] + strongest, -1)


def with_objects(test: Source, places: np.ndarray) -> Source:
    """Returns the clips with an object of the test bank before the face in the frames at `places`, -1 for none."""
    chosen = np.flatnonzero(places >= 0)
    rows = places[chosen]
    pictures = {"image": test.frames["frames"][rows], "landmarks": test.frames["landmarks"][rows]}
    single = dataclasses.replace(test, arrays=pictures, rows=test.rows[chosen], frames={})
    frames = np.array(test.frames["frames"])
    frames[rows] = paint(single, "test", TEST_SEED)[0]
    return dataclasses.replace(test, frames={**test.frames, "frames": frames})


def told_logits(model: Trained, features: np.ndarray, test: Source) -> np.ndarray:
    """Returns the logits [N, C] of the features [N T, P] weighed by the true intensity, evenly where there is none."""
    mask, intensity = (_by_clip(test.frames[name]) for name in ("frame_mask", "frame_intensity"))
    weights = np.where((intensity * mask).sum(axis=1, keepdims=True) > 0, intensity * mask, mask.astype(float))
    weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    classifier = model.variables["params"]["classifier"]
    pooled = np.einsum("nt,ntp->np", weights, _by_clip(features))
    return pooled @ np.asarray(classifier["kernel"]) + np.asarray(classifier["bias"])


TRIAL = Trial(
    name="fan",
    claim="FAN: attention weighs the frames that show the expression, and so beats fusing the frames' scores.",
    arms={
        "relation": functools.partial(arm, attention="relation"),
        "self": functools.partial(arm, attention="self"),
        POOLED: functools.partial(arm, attention="mean", dropout_anchor=DROPOUT),
        FUSION: functools.partial(arm, attention="score_fusion"),
        DROPPED: functools.partial(arm, attention="score_fusion", dropout_frames=DROPOUT),
    },
    measure=measure,
    seeds=10,
    control=FUSION,
    start=stills,
    comparisons=(
        Comparison("FAN is right on more clips than score fusion", "accuracy", "relation", DROPPED, **POINTS),
        Comparison("It is right on more clips than the mean of the features", "accuracy", "relation", POOLED, **POINTS),
        Comparison("Its weights rank frames by how strong the expression is", "spearman", "relation", 0.0, **RANK),
        Comparison("An object before a face lowers the weight of the frame", "object lowers", "relation", 0.0, **SHARE),
    ),
    attainable=Comparison("Weights by the true intensity are right on more clips", "told", POOLED, 0.0, **POINTS),
)

if __name__ == "__main__":
    sys.exit(main(TRIAL))
