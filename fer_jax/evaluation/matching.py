"""Matches the classes of a model and a data set by name, to score the model on another data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax.data.sources.source import Source
from fer_jax.data.targets.labeled import of_columns
from fer_jax.errors import UserError, some
from fer_jax.labels import ALIASES


@dataclasses.dataclass(frozen=True)
class Match:
    """A source reduced to the classes that it shares with a model.

    Attributes:
        source: the examples of shared classes; `source.classes` are in the model's order.
        columns: int [C], the model's outputs for the shared classes.
        complete: whether these are all of the model's classes.
        left_out: {'model': [name], 'data': {name: number of examples}}, what is not scored; empty if nothing.
        probable: whether the softmax of the scored logits gives probabilities.
    """

    source: Source
    columns: np.ndarray
    complete: bool = True
    left_out: dict[str, Any] = dataclasses.field(default_factory=dict)
    probable: bool = True

    def of_outputs(self, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns a model's outputs without the logits of classes that are left out."""
        if self.complete:
            return outputs
        return {k: v[:, self.columns] if k in ("logits", "plain_logits") else v for k, v in outputs.items()}

    def describe(self) -> str:
        """Returns a line that lists what is left out; empty if nothing is."""
        parts = []
        if self.left_out.get("data"):
            examples = some([f"{count} of {name}" for name, count in self.left_out["data"].items()])
            parts.append(f"examples of classes that the model does not know ({examples})")
        if self.left_out.get("model"):
            parts.append(f"predictions of classes that the data set does not have ({some(self.left_out['model'])})")
        return f"left out of the score: {' and '.join(parts)}" if parts else ""


def whole(source: Source) -> Match:
    """Returns the match of a source with a model of the same classes in the same order."""
    return Match(source, np.arange(len(source.classes)))


def match_classes(source: Source, classes: Sequence[str]) -> Match:
    """Matches the classes of a source with those of a model, by their canonical names (see `fer_jax.labels`).

    Args:
        source: the examples.
        classes: the model's.

    Raises:
        UserError: if they have no class in common, or the source no example of one.
    """
    ours, theirs = [_canonical(name) for name in classes], [_canonical(name) for name in source.classes]
    columns = np.array([column for column, name in enumerate(ours) if name in theirs], int)
    place = {theirs.index(ours[column]): number for number, column in enumerate(columns)}
    label = np.array([place.get(number, -1) for number in range(len(theirs))])[source.arrays["label"]]
    if not (label >= 0).any():
        raise UserError(
            f"{source.name}, split {source.split}, has the classes {some(source.classes)}, none of which the "
            f"model knows ({some(classes)}): name another data set"
        )
    left = {name: int((source.arrays["label"] == n).sum()) for n, name in enumerate(source.classes) if n not in place}
    chosen = source.select(np.flatnonzero(label >= 0))
    order = sorted(place, key=place.__getitem__)
    arrays = dict(chosen.arrays) | {"label": label[label >= 0].astype(np.int32)}
    for name in {"target", "vote_target"} & set(arrays):
        arrays[name] = of_columns(arrays[name], order)
    names = tuple(classes[column] for column in columns)
    unknown = [name for column, name in enumerate(classes) if column not in columns]
    left_out = {"model": unknown, "data": left} if unknown or left else {}
    return Match(dataclasses.replace(chosen, classes=names, arrays=arrays), columns, not unknown, left_out)


def _canonical(name: str) -> str:
    return ALIASES.get(name.strip().lower(), name.strip().lower())
