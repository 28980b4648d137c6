"""Predicts compound expressions from the probabilities of a model that was trained only on basic ones.

The pair (a, b) has the score

    s_ab = log p_a + log p_b - log(1 - p_neutral)

and the pair with the largest score is predicted. If a data set also has basic classes, the most probable basic class is
predicted if its p is above `SURE`, or if no score reaches a threshold; the threshold maximizes mean recall on examples
that are not tested. Three words name the same pair as another class (appalled, hatred, awed): they have the same score,
and the first of the classes wins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fer_jax.data.sources.source import Source
from fer_jax.evaluation.matching import Match
from fer_jax.evaluation.metrics import log_softmax
from fer_jax.labels import PARTS, are_compound, parts_of

SURE = 0.7
CANDIDATES = 200  # thresholds that are tried, quantiles of the scores
LEAST = 1e-12  # of 1 - p_neutral

Parts = Sequence[tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class PairMatch(Match):
    """A source with compound classes, and a model of basic ones whose logits become those of the source's classes.

    Attributes:
        parts: the part of each of the model's classes, at most one.
        wanted: the parts of each of the source's classes.
        threshold: of the scores of pairs; None if the source has only pairs.
    """

    parts: Parts = ()
    wanted: Parts = ()
    threshold: float | None = None

    def of_outputs(self, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns a model's outputs with the logits of the source's classes."""

        def read(logits: np.ndarray) -> np.ndarray:
            return compound_logits(logits, self.parts, self.wanted, self.threshold)

        return {k: read(v) if k in ("logits", "plain_logits") else v for k, v in outputs.items()}

    def describe(self) -> str:
        """Returns a sentence on how compound classes are predicted."""
        kept = "" if self.threshold is None else f", a basic one where no pair scores above {self.threshold:.2f}"
        means = "; only the answers mean something, not the probabilities" if kept else ""
        return f"Compound expressions are read from the probabilities of basic ones{kept}{means}."


def reads_pairs(source_classes: Sequence[str], model_classes: Sequence[str]) -> bool:
    """Returns whether the source has compound classes and the model only basic ones, including all their parts."""
    known, wanted = _parts(model_classes), _parts(source_classes)
    needed = {(part,) for part in PARTS} | {names for names in wanted if len(names) < 2}
    return are_compound(source_classes) and needed <= set(known) and max(map(len, known)) == 1


def needs_threshold(source_classes: Sequence[str]) -> bool:
    """Returns whether basic classes are among those of a source."""
    return min(map(len, _parts(source_classes))) < 2


def match_pairs(source: Source, model: Any, validation: Source | None) -> PairMatch:
    """Matches a source of compound classes with a trained model of basic ones.

    Args:
        source: the examples to score.
        model: a `Trained`.
        validation: examples of the same classes that set the threshold; None if the source has only pairs.
    """
    parts, wanted = _parts(model.classes), _parts(source.classes)
    threshold = None
    if validation is not None:
        logits = model.outputs(validation)["logits"]
        threshold = best_threshold(logits, validation.arrays["label"], parts, wanted)
    kept: dict[str, Any] = {"parts": parts, "wanted": wanted, "threshold": threshold}
    return PairMatch(source, np.arange(0), complete=False, probable=threshold is None, **kept)


def pair_scores(log_p: Float[np.ndarray, "N K"], parts: Parts, pairs: Parts) -> Float[np.ndarray, "N P"]:
    """Returns s_ab of each pair.

    Args:
        log_p: log-probabilities of the model's classes.
        parts: of these classes, at most one; neutral has none.
        pairs: (a, b).
    """
    place = {names[0]: column for column, names in enumerate(parts) if names}
    neutral = np.exp(log_p[:, [column for column, names in enumerate(parts) if not names]]).sum(axis=1)
    both = [log_p[:, place[a]] + log_p[:, place[b]] for a, b in pairs]
    return np.stack(both, axis=1) - np.log(np.maximum(1 - neutral, LEAST))[:, None]


def compound_logits(
    logits: Float[np.ndarray, "N K"], parts: Parts, wanted: Parts, threshold: float | None
) -> Float[np.ndarray, "N C"]:
    """Returns logits of compound and basic classes, such that the predicted class has the largest.

    Pairs have the logit s_ab. The most probable basic class has the threshold as its logit, and the other basic classes
    are lower by the difference of their log-probabilities. If the basic class is sure, pairs are below the threshold.

    Args:
        logits: of the model's classes.
        parts: of these classes, at most one.
        wanted: of the C classes.
        threshold: of s_ab; None if no basic class is wanted.
    """
    log_p = log_softmax(logits)
    pairs = [column for column, names in enumerate(wanted) if len(names) == 2]
    single = [column for column, names in enumerate(wanted) if len(names) < 2]
    found = np.zeros((len(logits), len(wanted)))
    found[:, pairs] = pair_scores(log_p, parts, [wanted[column] for column in pairs])
    if threshold is not None:
        of_single = log_p[:, [parts.index(wanted[column]) for column in single]]
        best = of_single.max(axis=1, keepdims=True)
        found[:, single] = threshold + of_single - best
        found[:, pairs] = np.where(best > np.log(SURE), np.minimum(found[:, pairs], threshold) - 1, found[:, pairs])
    return found


def best_threshold(
    logits: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"], parts: Parts, wanted: Parts
) -> float:
    """Returns the threshold that maximizes mean recall on these examples."""
    pairs = [names for names in wanted if len(names) == 2]
    largest = pair_scores(log_softmax(logits), parts, pairs).max(axis=1)
    candidates = np.unique(np.quantile(largest, np.linspace(0, 1, CANDIDATES)))
    classes = np.unique(labels)

    def mean_recall(threshold: float) -> float:
        right = compound_logits(logits, parts, wanted, threshold).argmax(axis=1) == labels
        return float(np.mean([right[labels == c].mean() for c in classes]))

    return float(max(candidates, key=mean_recall))


def _parts(classes: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns the parts of each class; contempt, which takes part in no pair, is its own."""
    found = {name: parts_of(name) for name in classes}
    return [(name,) if parts is None else parts for name, parts in found.items()]
