"""Makes labels and target distributions over the classes from the stored fields of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fer_jax.data.targets.votes import RULES, ferplus_targets, vote_distribution
from fer_jax.errors import UserError, nearest
from fer_jax.labels import EMOTIONS, MANY_CLASSES


def attach_targets(
    arrays: Mapping[str, np.ndarray], classes: tuple[str, ...], *, rule: str, votes: str, training: bool
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Adds `label`, `target` and, if there are votes, `vote_target`; drops examples that the rule rejects.

    Args:
        arrays: fields of the data set; rules on votes read the ten FER+ columns in the field named by `votes`.
        classes: the data set's classes.
        rule: 'label' (one-hot of the stored label) or one of `RULES` (see `fer_jax/data/targets/votes.py`).
        votes: name of the field with the votes; a boolean field 'has_<name>' may say which rows have any.
        training: evaluation scores against the majority whatever the training rule is, as in FER+.

    Returns:
        The fields, with `label` int32 [N], `target` float32 [N, C] (up to `MANY_CLASSES`) and `vote_target` float32
        [N, C] (zero rows if nobody voted for an emotion), and the names of the C classes.

    Raises:
        UserError: if the rule does not exist, or if the labels or votes that it needs are missing.
    """
    arrays = dict(arrays)
    if rule == "label":
        if "label" not in arrays:
            raise UserError(f"config.data.target='label': this data set has votes only; give one of {', '.join(RULES)}")
        if unlabeled := int((arrays["label"] < 0).sum()):
            raise UserError(f"config.data.dataset: {unlabeled} examples have no label; give a data set without such")
        if len(classes) <= MANY_CLASSES:  # of thousands of people the step makes them
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
                f"config.data.votes='{votes}': no example has such votes, because this copy of the data set was "
                "prepared without their file; prepare it again with the file, or give other votes "
                f"({', '.join(k for k in arrays if k.startswith('votes') and k != votes)})"
            )
        arrays = {k: v[keep] for k, v in arrays.items()}
        arrays["target"] = target[keep].astype(np.float32)
        arrays["label"] = arrays["target"].argmax(-1).astype(np.int32)
    if votes in arrays and set(classes) <= set(EMOTIONS):
        distribution = vote_distribution(arrays[votes]).astype(np.float32)
        if distribution.shape[-1] > len(classes):  # some votes are for a class that the labels lack
            distribution = of_columns(distribution, range(len(classes)))
        arrays["vote_target"] = distribution
    arrays["label"] = arrays["label"].astype(np.int32)
    return arrays, classes


def of_columns(distributions: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Returns columns of distributions [N, C], scaled to sum to one again; a row without mass there is zero."""
    part = distributions[:, list(columns)]
    total = part.sum(axis=1, keepdims=True)
    return np.divide(part, total, out=np.zeros_like(part), where=total > 0)


def without_classes(
    arrays: Mapping[str, np.ndarray], classes: tuple[str, ...], drop: Sequence[str]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Drops the examples of some classes, and these classes from `label`, `target` and `vote_target`.

    Raises:
        UserError: for an unknown class, and if fewer than two classes are left.
    """
    for name in drop:
        if name not in classes:
            raise UserError(f"config.data.drop_classes: there is no class '{name}'; {nearest(name, classes)}")
    left = [number for number, name in enumerate(classes) if name not in drop]
    if len(left) < 2:
        raise UserError(
            f"config.data.drop_classes leaves {len(left)} of the classes {', '.join(classes)}: keep at least two"
        )
    place = np.full(len(classes), -1, np.int32)
    place[left] = np.arange(len(left))
    label = place[arrays["label"]]
    arrays = {name: values[label >= 0] for name, values in arrays.items()}
    arrays |= {name: of_columns(arrays[name], left) for name in ("target", "vote_target") if name in arrays}
    return arrays | {"label": label[label >= 0]}, tuple(classes[number] for number in left)


def with_neutral(
    arrays: Mapping[str, np.ndarray], classes: tuple[str, ...], neutral: np.ndarray
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Labels the examples in `neutral` (bool [N]) as neutral, whatever the label of their clip is.

    If the data set has no such class (CK+, MMI, Oulu-CASIA), it is added at its place in the canonical order, which
    shifts labels and the columns of `target` and `vote_target`. Nobody voted on these examples: their votes become 0.

    Raises:
        UserError: if a class is not a basic emotion, since the order of such classes is unknown.
    """
    for name in classes:
        if name not in EMOTIONS:
            raise UserError(
                f"config.data.neutral_frames: a neutral class cannot be added to classes such as '{name}', which is "
                "not a basic emotion; set it to 0"
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
        known = [k for k in arrays if k.startswith("votes")]
        raise UserError(f"config.data.votes='{votes}': this data set has no such votes; {nearest(votes, known)}")
    present = arrays.get(votes.replace("votes", "has", 1))
    return arrays[votes] if present is None else arrays[votes] * present[:, None]
