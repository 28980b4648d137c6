"""All scores of a model on a data set, and the line that reports them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from fer_jax.config.protocol import selected_on
from fer_jax.data.corrupt.degradation import degraded, images_sha256, parse
from fer_jax.data.corrupt.occlusion import behind_test_objects
from fer_jax.data.sources.source import Source
from fer_jax.errors import some
from fer_jax.evaluation.evaluate import Evaluator, Outputs, score
from fer_jax.evaluation.matching import Match
from fer_jax.evaluation.metrics import AFFECT_SCORES, confidence_threshold, risk_and_coverage
from fer_jax.labels import AFFECT

RISK = 0.2  # of a prediction that counts as sure
DATA = ("dataset", "split", "data_digest", "num_examples")
HEADLINE = ("accuracy", "mean_recall", "macro_f1", "nll", "ece")
OF_PROBABILITIES = ("nll", "ece", "reliability")


@dataclasses.dataclass(frozen=True)
class Scored:
    """A model's scores on a source.

    Attributes:
        source: the examples.
        outputs: of the model for them.
        scores: plain JSON values, as results.json has them.
        covered: the same examples with objects in front of faces; None unless the config asks for them.
    """

    source: Source
    outputs: Outputs
    scores: dict[str, Any]
    covered: Source | None = None


def score_model(evaluator: Evaluator, variables: Any, match: Match, config: Any) -> Scored:
    """Evaluates a model on a source, and on the degraded copies of it that the config asks for.

    Args:
        evaluator: of the model's task.
        variables: of the model.
        match: the source, and which of the model's classes are scored.
        config: the run's; its `evaluation` decides what is scored.

    Returns:
        The scores (see `evaluate.score`) and, where they apply: `plain`, scores without averaging over views;
        `occluded`, scores with objects in front of faces; `degraded`, for each degradation its parameters, the digest
        of its images and their scores.
    """
    task = evaluator.task if match.complete else None  # a method's own scores need all of its classes

    def scores_of(outputs: Outputs, source: Source) -> dict[str, Any]:
        found = score(outputs, source, bootstrap=config.evaluation.bootstrap, task=task)
        return {k: v for k, v in found.items() if match.probable or k not in OF_PROBABILITIES}

    def short(outputs: Outputs, source: Source) -> dict[str, Any]:
        scores = scores_of(outputs, source)
        return {k: v for k, v in scores.items() if k in (*HEADLINE, "confusion") or k.endswith("_interval")}

    def worse(source: Source) -> dict[str, Any]:
        found = short(match.of_outputs(evaluator(variables, source)), source)
        return found | {"accuracy_lost": scores["accuracy"] - found["accuracy"]}

    source, covered = match.source, None
    outputs = match.of_outputs(evaluator(variables, source))
    scores = scores_of(outputs, source)
    if "plain_logits" in outputs:
        scores["plain"] = short(outputs | {"logits": outputs["plain_logits"]}, source)
    if config.evaluation.occluded:
        covered = behind_test_objects(source)
        scores["occluded"] = worse(covered)
    for text in config.evaluation.degraded:
        copies = degraded(source, text)
        found = parse(text) | {"images_sha256": images_sha256(copies)} | worse(copies)
        scores.setdefault("degraded", {})[text] = found
    return Scored(source, outputs, scores, covered)


def main_scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the scores of an evaluation that are logged and kept in checkpoints; None for missing ones."""
    names = (*HEADLINE, *(name for name in AFFECT_SCORES if name in scores))
    return {name: scores.get(name) for name in scores.get("measures", names)}


def card_scores(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of results.json that a model file keeps: what was scored, and the main scores with intervals."""
    kept = (*DATA, *main_scores(results))
    return {name: value for name, value in results.items() if name in kept or name.endswith("_interval")}


def unsure(logits: np.ndarray, validation: Source, config: Any, scored: Scored) -> dict[str, Any]:
    """Returns the confidence `threshold` below which a prediction is unsure, and its coverage and risk on `test`.

    Args:
        logits: [V, C] of the validation examples, which set the threshold.
        validation: these examples.
        config: of the run.
        scored: the test split.
    """
    threshold = confidence_threshold(logits, validation.arrays["label"], RISK)
    found = {"risk": RISK, "threshold": threshold, "chosen_on": selected_on(config)}
    if threshold is None:
        return found
    return found | {"test": risk_and_coverage(scored.outputs["logits"], scored.source.arrays["label"], threshold)}


def headline(results: Mapping[str, Any]) -> str:
    """Returns the scores of a run, or of a sweep, in one line."""
    examples = f"{results['dataset']} {results['split']}, {results['num_examples']} {results.get('unit', 'images')}"
    if "seeds" in results:
        return f"{examples}, {len(results['seeds'])} seeds: {_over_seeds(results)}"
    if "measures" in results:
        means = ", ".join(f"{title} {results[name]:.3f}" for name, title in results["measures"].items())
        return f"{examples}: {means}{_over_folds(results)}"
    interval = results.get("accuracy_interval")
    between = f" (95 % interval {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
    parts = [
        f"{examples}: accuracy {results['accuracy']:.4f}{between}, mean recall {results['mean_recall']:.4f}, "
        f"macro F1 {results['macro_f1']:.4f}"
    ]
    parts += [f"{name} CCC {results[f'{name}_ccc']:.4f}" for name in AFFECT if results.get(f"{name}_ccc") is not None]
    parts += [f"coverage {results['coverage']:.4f}"] if "coverage" in results else []
    copies = {"of the images alone": results.get("plain"), "behind objects": results.get("occluded")}
    copies |= results.get("degraded", {})
    parts += [f"{name}: accuracy {found['accuracy']:.4f}" for name, found in copies.items() if found]
    return "; ".join(parts) + _over_folds(results)


def never_recognized(results: Mapping[str, Any]) -> str:
    """Returns a sentence that names the classes with recall 0 on the test split; '' if there are none."""
    recall = zip(results["classes"], results.get("recall", ()), strict=False)  # None without examples
    names = [name for name, value in recall if value == 0]
    return f"No example of {some(names)} is recognized." if names else ""


def _over_seeds(results: Mapping[str, Any]) -> str:
    """The means over seeds, with standard deviation and interval."""
    shown = []
    for name in results.get("measures", ("accuracy", "mean_recall", "macro_f1")):
        low, high = results["interval"][name]
        mean, std = results["mean"][name], results["std"][name]
        title = name.replace("_f1", " F1").replace("_", " ")
        shown.append(f"{title} {mean:.4f} ± {std:.4f} (95 % interval of the mean {low:.4f} to {high:.4f})")
    return ", ".join(shown)


def _over_folds(results: Mapping[str, Any]) -> str:
    """The means over folds, behind the scores of all examples together."""
    if "folds" not in results:
        return ""
    names = list(results.get("measures", ("accuracy", "mean_recall")))
    shown = (f"{n.replace('_', ' ')} {results['mean'][n]:.4f} ± {results['std'][n]:.4f}" for n in names)
    return f"; mean over the folds: {', '.join(shown)}"
