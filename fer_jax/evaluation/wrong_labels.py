"""Scores how a trained model treats wrong training labels, if the true labels are known."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from fer_jax.data.sources.source import Source
from fer_jax.evaluation.evaluate import Outputs
from fer_jax.evaluation.metrics import log_softmax, predicted_classes

AGREED = 0.75  # share of the votes for the true class from which on the annotators agree
PARTS = 10  # of the examples, by how doubtful their label is


def wrong_labels(outputs: Outputs, source: Source) -> dict[str, Any]:
    """Scores how a model treats wrong training labels, as plain JSON values.

    Three signals measure how doubtful the label y of an example is: `loss` -log p_y, `margin` max_{k != y} p_k - p_y,
    and the method's own `uncertainty`, if it learns one.

    Args:
        outputs: of the training examples without augmentation: logits [N, C] and, of some methods, uncertainty [N, 1].
        source: these examples, with the true labels in `clean_label`.

    Returns:
        memorized: the fraction of wrong labels that the model predicts.
        recovered: the fraction of wrongly labeled examples whose true class it predicts.
        auroc: by signal, the probability that a wrong label is more doubtful than a right one; with votes,
            `auroc_agreed` is for the examples on whose class the annotators agree (`AGREED`), `auroc_disputed` for the
            others.
        wrong_share: by signal, the fraction of wrong labels in each tenth of the examples, the most doubtful last.
    """
    labels, truth = source.arrays["label"], source.arrays["clean_label"]
    log_p, wrong, rows = log_softmax(outputs["logits"]), labels != truth, np.arange(len(labels))
    p = np.exp(log_p)
    of_label = p[rows, labels]
    p[rows, labels] = 0.0
    signs = {"loss": -log_p[rows, labels], "margin": p.max(axis=1) - of_label}
    if "uncertainty" in outputs:
        signs["uncertainty"] = outputs["uncertainty"][:, 0]
    predicted = predicted_classes(outputs["logits"])
    found: dict[str, Any] = {
        "memorized": _mean((predicted == labels)[wrong]),
        "recovered": _mean((predicted == truth)[wrong]),
        "auroc": {name: auroc(sign, wrong) for name, sign in signs.items()},
    }
    if "vote_target" in source.arrays:
        agreed = source.arrays["vote_target"][rows, truth] >= AGREED
        for name, part in (("agreed", agreed), ("disputed", ~agreed)):
            found[f"auroc_{name}"] = {sign: auroc(values[part], wrong[part]) for sign, values in signs.items()}
    found["wrong_share"] = {
        name: [_mean(part) for part in np.array_split(wrong[np.argsort(sign, kind="stable")], min(PARTS, len(wrong)))]
        for name, sign in signs.items()
    }
    return found


def auroc(sign: Float[np.ndarray, " N"], wrong: Bool[np.ndarray, " N"]) -> float | None:
    """Returns the probability that the signal of a wrong label exceeds that of a right one; ties count half."""
    count = int(wrong.sum())
    if not 0 < count < len(wrong):
        return None
    _, place, same = np.unique(sign, return_inverse=True, return_counts=True)
    rank = (np.cumsum(same) - (same - 1) / 2)[place]
    return float((rank[wrong].sum() - count * (count + 1) / 2) / (count * (len(wrong) - count)))


def _mean(chosen: np.ndarray) -> float | None:
    return float(chosen.mean()) if len(chosen) else None
