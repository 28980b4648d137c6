"""Word2Vec FER's claim: cosines between emotion words shape the mistakes, so that a mistake is a smaller one.

    python -m experiments.claims.word2vec

The measure is the semantic error, the mean over the mistakes of 1 - cosine(word of the truth, word of the answer),
taken for every arm with the cosines of the words themselves. The arms are one network by one recipe:

  * A0, the cosine loss as published, and A3, the same with a cross-entropy over the cosines;
  * each towards the words and towards random orthonormal vectors, drawn again for each seed; A0 also towards the
    orthonormal vectors next to the words (`whiten`): what is left of the method without what words know of each other;
  * cross-entropy on a linear classifier.

An answer that resembles every word lowers the semantic error, whatever the face: nearest-word decoding favors such
words (docs/word2vec.md). `closeness` leaves that out: by how much the semantic error is below what it would be if each
mistake fell on a class as often as that class is the answer of all mistakes.

The arms differ in accuracy too, so that their mistakes are not mistakes on the same faces: whoever errs on the easier
faces as well may err nearer to the truth for that reason. Their accuracies are compared beside the errors.

It is a claim about which mistakes are made, so the network is small and stops early: there are mistakes to look at.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.claims.trial import Comparison, Measures, Trial, main
from experiments.presets import VARIANTS
from fer_jax.config.fields import Config, variant_config
from fer_jax.data.sources.source import load
from fer_jax.evaluation.metrics import confusion_matrix
from fer_jax.inference.trained import Trained
from fer_jax.methods.word2vec import gram_matrix, semantic_error
from fer_jax.report.style import BLUE, FAINT, INK, ORANGE, new_figure, quiet, wrapped
from fer_jax.words.classes import class_vectors

VECTORS, WORDS = "minilm", "seed"
ERROR, CLOSENESS, ACCURACY = "semantic_error", "closeness", "accuracy"


def recipe(seed: int, method: str) -> Config:
    """The synthetic recipe with a ResNet-10 a quarter as wide as the full one, cut to a few epochs."""
    config = variant_config("claims/word2vec", method, "synthetic", VARIANTS)
    config.seed = seed
    config.model.depth = 10
    config.model.width = 16
    config.train.batch_size = 32
    config.train.epochs = 3.5
    config.train.eval_every_epochs = 3.5
    return config


def arm(seed: int, kind: str, control: str) -> Config:
    """Towards class vectors."""
    config = recipe(seed, "word2vec")
    config.model.vectors, config.model.words, config.model.control = VECTORS, WORDS, control
    config.model.control_seed = seed
    config.loss.options.kind = kind
    config.model.learn_scale = kind == "hybrid"
    return config


def measure(arm_name: str, model: Trained) -> Measures:
    """Semantic error and closeness on the test faces, by the words' own cosines whatever the arm is."""
    del arm_name
    test = load(model.config.data, "test", training=False)
    predicted = model.outputs(test)["logits"].argmax(axis=-1)
    return measures_of(confusion_matrix(test.arrays["label"], predicted, len(test.classes)), test.classes)


def measures_of(confusion: np.ndarray, classes: tuple[str, ...]) -> Measures:
    """`semantic_error` and `closeness` of a confusion matrix (rows are the truth); 0 where there is no mistake."""
    gram = gram_matrix(np.asarray(class_vectors(VECTORS, WORDS, classes).vectors))
    error = semantic_error(gram, confusion)
    if error is None:
        return {"semantic_error": 0.0, "closeness": 0.0}
    return {"semantic_error": error, "closeness": (semantic_error(gram, by_chance(confusion)) or 0.0) - error}


def by_chance(confusion: np.ndarray) -> np.ndarray:
    """The mistakes of each class, spread over the other classes as often as those are the answer of all mistakes."""
    mistakes = np.array(confusion, float)
    np.fill_diagonal(mistakes, 0.0)
    answers = np.tile(mistakes.sum(axis=0), (len(mistakes), 1))
    np.fill_diagonal(answers, 0.0)
    return mistakes.sum(axis=1, keepdims=True) * answers / np.maximum(answers.sum(axis=1, keepdims=True), 1e-12)


def picture(record: Mapping[str, Any]) -> Figure:
    """Semantic error, closeness and accuracy of every arm: a dot for each seed, a bar at the mean."""
    arms = record["arms"]
    figure = new_figure(900, 34 * len(arms) + 90)
    for axes, (name, title, scale) in zip(
        figure.subplots(1, 3, sharey=True),
        (
            (ERROR, "semantic error (lower is claimed)", 1.0),
            (CLOSENESS, "closeness (higher is claimed)", 1.0),
            (ACCURACY, "accuracy, %", 100.0),
        ),
        strict=True,
    ):
        quiet(axes, "")
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color=FAINT, alpha=0.3, linewidth=0.8)
        for row, (arm_name, runs) in enumerate(arms.items()):
            values = scale * np.array(runs[name])
            color = BLUE if arm_name.endswith("words") else ORANGE
            axes.scatter(values, np.full(len(values), row), s=22, color=color, alpha=0.55, linewidth=0)
            axes.plot([values.mean()] * 2, [row - 0.32, row + 0.32], color=color, linewidth=2.2)
        axes.set_yticks(range(len(arms)), [wrapped(arm_name, 24) for arm_name in arms])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(arms) - 0.4, -0.6)
        axes.set_title(title, fontsize=9, color=INK, loc="left")
    return figure


TRIAL = Trial(
    name="word2vec",
    claim="Word2Vec FER: trained towards emotion words, a network's mistakes are closer to the truth, in words.",
    arms={
        "A0 words": lambda seed: arm(seed, "cosine", "none"),
        "A0 random": lambda seed: arm(seed, "cosine", "random"),
        "A0 whiten": lambda seed: arm(seed, "cosine", "whiten"),
        "A3 words": lambda seed: arm(seed, "hybrid", "none"),
        "A3 random": lambda seed: arm(seed, "hybrid", "random"),
        "cross-entropy": lambda seed: recipe(seed, "baseline"),
    },
    measure=measure,
    comparisons=(
        *(Comparison(ERROR, "A0 words", other, "lower") for other in ("A0 random", "A0 whiten", "cross-entropy")),
        *(Comparison(ERROR, "A3 words", other, "lower") for other in ("A3 random", "cross-entropy")),
        *(Comparison(CLOSENESS, f"{a} words", f"{a} random") for a in ("A0", "A3")),
        *(Comparison(ACCURACY, ours, "cross-entropy", scale=100, unit=" %") for ours in ("A0 words", "A3 words")),
        *(Comparison(ACCURACY, f"{a} words", f"{a} random", scale=100, unit=" %") for a in ("A0", "A3")),
    ),
    draw=picture,
)

if __name__ == "__main__":
    sys.exit(main(TRIAL))
