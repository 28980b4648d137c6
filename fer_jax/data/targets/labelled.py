"""From what a data set stores to what a network learns: the label, and a target distribution over the classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fer_jax.data.targets.votes import RULES, ferplus_targets, vote_distribution
from fer_jax.errors import UserError, nearest
from fer_jax.labels import EMOTIONS


def attach_targets(
    arrays: Mapping[str, np.ndarray], classes: tuple[str, ...], *, rule: str, votes: str, training: bool
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Adds `label`, `target` and, where there are votes, `vote_target`; drops examples that the rule rejects.

    Args:
        arrays: fields of the data set; rules over votes read the ten FER+ columns in the field named by `votes`.
        classes: the data set's classes.
        rule: 'label' (one-hot of the stored label), or one of `RULES` (see `fer_jax/data/targets/votes.py`).
        votes: name of the field with the votes; a boolean field 'has_<name>' beside it says which rows have any.
        training: evaluation scores against the majority whatever rule trains, as FER+ does.

    Returns:
        The fields (`target` float32 [N, C], `vote_target` float32 [N, C] with zero rows where nobody voted for an
        emotion) and the classes they are over.
    """
    arrays = dict(arrays)
    if rule == "label":
        if "label" not in arrays:
            raise UserError(f"config.data.target='label': this data set has votes only; give one of {', '.join(RULES)}")
        if unlabelled := int((arrays["label"] < 0).sum()):
            raise UserError(
                f"{unlabelled} examples of config.data.dataset have no label: name a variant of labelled ones only, "
                "such as ckplus/labelled"
            )
        arrays["target"] = np.eye(len(classes), dtype=np.float32)[arrays["label"]]
    else:
        if rule not in RULES:
            raise UserError(f"config.data.target='{rule}': {nearest(rule, ('label', *RULES))}")
        classes = EMOTIONS
        counts = _votes(arrays, votes)
        keep, target = ferplus_targets(counts, rule if training or rule == "argmax" else "majority")
        keep &= counts.sum(-1) > 0
        if not keep.any():
            raise UserError(
                f"config.data.votes='{votes}': no example has such votes; this copy of the data set was prepared "
                f"without them: name others ({', '.join(k for k in arrays if k.startswith('votes') and k != votes)}) "
                "or build it anew with that file"
            )
        arrays = {k: v[keep] for k, v in arrays.items()}
        arrays["target"] = target[keep].astype(np.float32)
        arrays["label"] = arrays["target"].argmax(-1).astype(np.int32)
    if votes in arrays:
        distribution = vote_distribution(arrays[votes]).astype(np.float32)
        if distribution.shape[-1] > len(classes):  # votes for a class that the labels do not have
            distribution = distribution[:, : len(classes)]
            total = distribution.sum(-1, keepdims=True)
            distribution = np.divide(distribution, total, out=np.zeros_like(distribution), where=total > 0)
        arrays["vote_target"] = distribution
    arrays["label"] = arrays["label"].astype(np.int32)
    return arrays, classes


def with_neutral(
    arrays: Mapping[str, np.ndarray], classes: tuple[str, ...], neutral: np.ndarray
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Labels the examples at `neutral` (bool [N]) neutral, whatever was said of the clip that they were taken from.

    Where the data set has no such class (CK+, MMI, Oulu-CASIA) it becomes one, at its place in the canonical order, so
    labels and the columns of `target` and `vote_target` move. Nobody voted on these examples: their votes are 0.

    Raises:
        UserError: where the classes are not the basic emotions: among others, neutral has no place.
    """
    for name in classes:
        if name not in EMOTIONS:
            raise UserError(
                f"config.data.neutral_frames: neutral has no place among classes such as '{name}', which is no basic "
                "emotion; give 0"
            )
    wider = tuple(name for name in EMOTIONS if name in {*classes, "neutral"})
    place = np.array([wider.index(name) for name in classes])
    arrays = dict(arrays)
    for field in {"target", "vote_target"} & set(arrays):
        moved = np.zeros((len(neutral), len(wider)), arrays[field].dtype)
        moved[:, place] = arrays[field]
        moved[neutral] = 0
        arrays[field] = moved
    for field in [name for name in arrays if name.startswith("votes")]:
        arrays[field] = np.where(neutral[:, None], 0, arrays[field])
    index = wider.index("neutral")
    arrays["target"][neutral, index] = 1
    arrays["label"] = np.where(neutral, index, place[arrays["label"]]).astype(np.int32)
    return arrays, wider


def _votes(arrays: Mapping[str, np.ndarray], votes: str) -> np.ndarray:
    if votes not in arrays:
        there = [k for k in arrays if k.startswith("votes")]
        raise UserError(f"config.data.votes='{votes}': this data set has no such votes; {nearest(votes, there)}")
    there = arrays.get(votes.replace("votes", "has", 1))
    counts = arrays[votes]
    return counts if there is None else counts * there[:, None]
