"""PSR's claim: a pyramid of sizes with super-resolution holds out on small faces (Vo et al., IEEE Access 2020).

    python -m experiments.claims.psr        # five seeds: about 290 minutes of one CPU core

Test faces of 64 pixels are reduced to 12, 16, 24 and 32 pixels and enlarged again, as a camera farther away would have
seen them; nothing was trained on such faces. `kept` is the share of the accuracy above chance at full size that is
left, its mean over the sizes: the area under the curve of share against size, which does not reward a low accuracy at
full size as a loss in points does. The arms share the recipe, the head and the steps: PSR with super-resolution that
was learned on the training faces first, the same pyramid with bicubic interpolation, the one network of usual practice,
the same with channels for as much computation as PSR's, and the same trained on half of the faces reduced, the positive
control.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import psr, psr_sr
from experiments.claims.statistics import ratio_values
from experiments.claims.trial import Comparison, Measures, Trial, main
from fer_jax.config.fields import Config
from fer_jax.data.corrupt.degradation import degraded
from fer_jax.data.sources.source import Source
from fer_jax.inference.trained import Trained

STEPS = 3000
SIZES = (12, 16, 24, 32)  # pixels, of 64
WIDTH, WIDER = 8, 13  # channels; of the one network that computes as much as PSR (352 of 365 MFLOP for 8 faces)
BICUBIC, EQUAL, TRAINED = "bicubic pyramid", "single, equal compute", "single, small faces"
SHARE: dict[str, Any] = {"margin": 0.02, "scale": 100.0, "unit": "% of the accuracy above chance"}


def arm(
    seed: int,
    multiples: tuple[int, ...] = (1,),
    upsampler: str = "bicubic",
    width: int = WIDTH,
    small_faces: bool = False,
) -> Config:
    """The synthetic recipe for a narrow VGG-16, without STN, dropout and PDLS."""
    del seed
    config = _steps(psr.get_config("synthetic"), STEPS)
    config.data.label_smoothing, config.data.smoothing_prior = 0.0, "uniform"
    config.model.multiples = multiples
    config.model.upsampler = upsampler
    config.model.stn = False
    config.model.dropout = 0.0
    config.model.width = width
    if small_faces:
        config.augmentation.train = ("low_resolution:5,p=0.5", *config.augmentation.train)
    config.optimizer.groups = ()
    if upsampler == "edsr":  # it is pre-trained, so it learns as slowly as the paper's
        config.optimizer.groups = ((psr.SLOW, {"lr_multiplier": 0.01}),)
    return config


def super_resolution(seed: int) -> Config:
    """The pre-training of EDSR on the training faces."""
    del seed
    config = _steps(psr_sr.get_config("synthetic"), STEPS)
    config.schedule.boundaries_epochs = (0.6 * STEPS * config.train.batch_size / 5400,)
    return config


def _steps(config: Config, steps: int) -> Config:
    """So many steps, whatever an epoch has, and the model of the last one."""
    config.train.epochs, config.train.eval_every_epochs = 1000.0, 1000.0
    config.train.max_steps = steps
    config.selection.rule = "last"
    return config


def measure(name: str, model: Trained, test: Source) -> Measures:
    """The share kept at each size and over all sizes."""
    del name
    small = {size: _right(model, degraded(test, f"low_resolution:{size}")) for size in SIZES}
    return kept(_right(model, test), small, 1 / len(test.classes))


def kept(full: np.ndarray, small: Mapping[int, np.ndarray], chance: float) -> Measures:
    """Returns the shares of the accuracy above chance that are left, of which faces [N] are right at each size."""
    values = {size: ratio_values(right - chance, full - chance) for size, right in small.items()}
    each = {f"kept at {size} px": float(value.mean()) for size, value in values.items()}
    return {"kept": np.mean(list(values.values()), axis=0), **each}


def _right(model: Trained, faces: Source) -> np.ndarray:
    return (model.logits(faces).argmax(axis=1) == faces.arrays["label"]).astype(float)


PYRAMID = (1, 2, 1)
TRIAL = Trial(
    name="psr",
    claim="PSR: a pyramid of sizes with super-resolution keeps more of its accuracy on small faces.",
    arms={
        "PSR": functools.partial(arm, multiples=PYRAMID, upsampler="edsr"),
        BICUBIC: functools.partial(arm, multiples=PYRAMID),
        "single": arm,
        EQUAL: functools.partial(arm, width=WIDER),
        TRAINED: functools.partial(arm, small_faces=True),
    },
    start=super_resolution,
    starting=("PSR",),
    measure=measure,
    control="single",
    comparisons=(
        Comparison("On faces of 12 to 32 pixels PSR keeps more than one network", "kept", "PSR", "single", **SHARE),
        Comparison("It keeps more than one network of as much computation", "kept", "PSR", EQUAL, **SHARE),
        Comparison("It keeps more than the same pyramid with bicubic interpolation", "kept", "PSR", BICUBIC, **SHARE),
        Comparison("It keeps more than one network that was trained on small faces", "kept", "PSR", TRAINED, **SHARE),
    ),
    attainable=Comparison("One network trained on small faces keeps more", "kept", TRAINED, "single", **SHARE),
)

if __name__ == "__main__":
    sys.exit(main(TRIAL))
