"""Word2Vec FER's claim: cosines between emotion words shape the mistakes, so that a mistake costs less.

    python -m experiments.claims.word2vec        # ten seeds: about 80 minutes of one CPU core

`cost` is the mean over all test faces of 1 - cosine(word of the truth, word of the answer), 0 where the answer is
right: a mean over the mistakes alone rewards mistakes that others do not make. `affect cost` is judged by what nothing
was trained with: the distance of the two emotions in pleasure and arousal (Russell and Mehrabian 1977). The arms are
one network by one recipe:

  * A0, the cosine loss as published; A1, cross-entropy over the cosines; A3, the sum of both;
  * A0 and A3 towards the words and towards random orthonormal vectors, drawn again for each seed;
  * cross-entropy on a linear classifier.

`pinv gain` is what the same weights save of the cost when their answer is decoded by the pseudo-inverse of the words
(docs/word2vec.md): what nearest-word decoding costs. The vectors are MiniLM's; with --vectors=FILE word2vec's own, or
those of another table, with --out=FOLDER for the records.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.claims import trial
from experiments.claims.trial import Comparison, Measures, Trial
from experiments.presets import VARIANTS
from fer_jax.config.fields import Config, variant_config
from fer_jax.data.sources.source import Source
from fer_jax.inference.trained import Trained, build
from fer_jax.methods.word2vec import gram_matrix
from fer_jax.words.classes import class_vectors
from tfds_builders.synthetic_faces.expressions import AFFECT

WORDS = "seed"
WITH, WITHOUT, PLAIN = "A0 words", "A0 random", "cross-entropy"
# The margins are what 2 points of accuracy cost, at the mean distance of two emotions.
COST: dict[str, Any] = {"margin": 0.015, "better": "lower", "unit": "of 1 - cosine"}
AFFECT_COST: dict[str, Any] = {"margin": 0.02, "better": "lower", "unit": "of pleasure and arousal"}


def recipe(seed: int, method: str = "baseline") -> Config:
    """The synthetic recipe with a ResNet-10 a quarter as wide as the full one, in 8 epochs."""
    del seed
    config = variant_config("word2vec", method, "synthetic", VARIANTS)
    config.model.depth = 10
    config.model.width = 16
    config.train.batch_size = 32
    config.train.epochs = 8.0
    config.train.eval_every_epochs = 8.0
    return config


def arm(seed: int, vectors: str, kind: str, control: str = "none") -> Config:
    """Towards class vectors."""
    config = recipe(seed, "word2vec")
    config.model.vectors, config.model.words, config.model.control = vectors, WORDS, control
    config.model.control_seed = seed
    config.loss.options.kind = kind
    config.model.learn_scale = kind != "cosine"
    return config


def measure(name: str, model: Trained, test: Source, vectors: str) -> Measures:
    """The costs of the answers, by the words' own cosines whatever the arm is, and what the pseudo-inverse saves."""
    answers, label = model.logits(test).argmax(axis=1), test.arrays["label"]
    words, affect = (1 - gram_of(vectors, test.classes))[label], affect_distances(test.classes)[label]
    each = np.arange(len(label))
    found = {"cost": words[each, answers], "affect cost": affect[each, answers]}
    if name == WITH:
        decoded = build(model.variables, model.card, {"model.decode": "pinv"}).logits(test).argmax(axis=1)
        found["pinv gain"] = words[each, answers] - words[each, decoded]
    return found


def gram_of(vectors: str, classes: tuple[str, ...]) -> np.ndarray:
    """Returns the cosines [C, C] of the class words."""
    return gram_matrix(np.asarray(class_vectors(vectors, WORDS, classes).vectors))


def affect_distances(classes: tuple[str, ...]) -> np.ndarray:
    """Returns the distances [C, C] of emotions in pleasure and arousal."""
    places = np.array([AFFECT[name] for name in classes])
    return np.linalg.norm(places[:, None] - places, axis=-1)


def of_vectors(vectors: str) -> Trial:
    """The trial with the words of a table."""
    towards = functools.partial(arm, vectors=vectors)
    return Trial(
        name="word2vec",
        claim="Word2Vec FER: a network trained towards emotion words makes mistakes that cost less, in words.",
        arms={
            WITH: functools.partial(towards, kind="cosine"),
            WITHOUT: functools.partial(towards, kind="cosine", control="random"),
            "A1 words": functools.partial(towards, kind="softmax"),
            "A3 words": functools.partial(towards, kind="hybrid"),
            "A3 random": functools.partial(towards, kind="hybrid", control="random"),
            PLAIN: recipe,
        },
        measure=functools.partial(measure, vectors=vectors),
        seeds=10,
        control=PLAIN,
        comparisons=(
            Comparison(
                "Towards words (A0) an answer costs less than towards random vectors", "cost", WITH, WITHOUT, **COST
            ),
            Comparison("It costs less than by cross-entropy", "cost", WITH, PLAIN, **COST),
            Comparison(
                "With a cross-entropy over the cosines (A3) words cost less too",
                "cost",
                "A3 words",
                "A3 random",
                **COST,
            ),
            Comparison(
                "By pleasure and arousal, which trained nothing, words cost less (A0)",
                "affect cost",
                WITH,
                WITHOUT,
                **AFFECT_COST,
            ),
        ),
    )


TRIAL = of_vectors("minilm")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command, which knows --vectors besides the options of every claim."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--vectors", default="minilm")
    given, others = parser.parse_known_args(arguments)
    return trial.main(of_vectors(given.vectors), others)


if __name__ == "__main__":
    sys.exit(main())
