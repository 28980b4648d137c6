"""PDLS's claim: targets smoothed towards the usual votes for a class know the annotators (Vo et al., IEEE Access 2020).

    python -m experiments.claims.pdls --data_dir=FOLDER        # five seeds: about 130 minutes of one CPU core

Real faces: FER+, trained on the majority of the votes. Ordinary label smoothing and PDLS have the same epsilon, recipe
and network; `kl` is the divergence of the predictions from the votes on the test faces, in nats, after the logits of
each network were divided by the temperature that suits the public test faces best, so that it is not sharpness that is
compared. The prior of PDLS was estimated on FER+'s own training faces: of other data sets it knows less. Every seed
trains on 12,000 faces of its own; all of them are tested on the same ones, private_test, which no probe of the learning
rate reads.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from experiments.claims.trial import POINTS, Comparison, Measures, Trial, main
from experiments.presets import VARIANTS
from fer_jax.config.fields import Config, variant_config
from fer_jax.data.sources.source import Source
from fer_jax.data.sources.source import load as load_split
from fer_jax.evaluation.metrics import log_softmax
from fer_jax.inference.trained import Trained


def arm(seed: int, epsilon: float, prior: str) -> Config:
    """The short recipe of FER+ on the majority votes of 12,000 faces, each of which has one label to be smoothed."""
    config = variant_config("pdls", "baseline", "ferplus_short", VARIANTS)
    config.data.target = "majority"
    config.data.examples, config.data.examples_seed = 12000, seed
    config.data.label_smoothing, config.data.smoothing_prior = epsilon, prior
    config.evaluation.flip = False
    return config


def measure(name: str, model: Trained, test: Source) -> Measures:
    """The divergence from the votes at the best temperature."""
    del name
    public = load_split(model.config.data, model.config.data.validation_split, training=False)
    logits, votes = model.logits(public), public.arrays["vote_target"]
    found = minimize_scalar(lambda t: divergence(logits / np.exp(t), votes).mean(), bounds=(-3, 3), method="bounded")
    temperature = float(np.exp(found.x))
    return {
        "kl": divergence(model.logits(test) / temperature, test.arrays["vote_target"]),
        "temperature": temperature,
    }


def divergence(logits: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Returns KL(votes || softmax(logits)) of each example in nats, from votes that sum to 1; without votes it is 0."""
    return (votes * (np.log(np.maximum(votes, 1e-12)) - log_softmax(logits))).sum(axis=1)


NATS: dict[str, Any] = {"margin": 0.02, "better": "lower", "unit": "nats"}
TRIAL = Trial(
    name="pdls",
    claim="PDLS: targets smoothed towards the usual votes for a class bring predictions nearer to the annotators.",
    arms={
        "PDLS": functools.partial(arm, epsilon=0.2, prior="ferplus"),
        "label smoothing": functools.partial(arm, epsilon=0.2, prior="uniform"),
        "no smoothing": functools.partial(arm, epsilon=0.0, prior="uniform"),
    },
    measure=measure,
    control="no smoothing",
    new_faces=False,
    comparisons=(
        Comparison("PDLS is nearer to FER+'s votes than uniform smoothing", "kl", "PDLS", "label smoothing", **NATS),
        Comparison("It is nearer to them than no smoothing", "kl", "PDLS", "no smoothing", **NATS),
        Comparison("It is right on more faces than uniform smoothing", "accuracy", "PDLS", "label smoothing", **POINTS),
    ),
)

if __name__ == "__main__":
    sys.exit(main(TRIAL))
