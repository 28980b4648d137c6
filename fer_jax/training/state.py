"""The state of training between two steps: arrays, and a record of plain values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax

PyTree = Any


class TrainState(flax.struct.PyTreeNode):
    """A point in training. There is no random key inside: see `fer_jax/engine/rng.py`.

    Attributes:
        step: int32 [], optimizer steps done.
        params: float32 parameters.
        collections: the method's other variable collections (batch statistics, centers), by name.
        opt_state: the optimizer's state.
        average: moving average of {'params', 'collections'}, or None.
        memory: what the method stores for each training example, arrays [N, ...]; None if it stores nothing.
    """

    step: jax.Array
    params: PyTree
    collections: PyTree
    opt_state: PyTree
    average: PyTree
    memory: PyTree = None

    def evaluated(self) -> dict[str, PyTree]:
        """Returns {'params', 'collections'} to evaluate with: the moving average where there is one."""
        return self.average or {"params": self.params, "collections": self.collections}

    def variables(self) -> dict[str, PyTree]:
        """Returns what `evaluated` does in the form that a linen module takes."""
        source = self.evaluated()
        return {"params": source["params"], **source["collections"]}


@dataclasses.dataclass
class RunRecord:
    """What a checkpoint holds besides arrays, as plain JSON values.

    Attributes:
        best: scores and step of the best evaluation so far.
        last: scores and step of the newest evaluation.
        window: sum and count of each metric over the steps since the last log line (of the learning rate: the last
            value and 1), so that a resumed run writes the same line.
        images, seconds: images trained on, and the time that took, over all starts of the run, without the steps that
            compiled.
        wall_seconds: wall-clock time of all starts of the run, without the time between them.
        waited: seconds spent waiting for data.
        started_from: which weights the run began with; empty if from scratch.
        examples: digest of the training examples (see `examples.examples_digest`).
        count: number of training examples.
        lines: number of lines in metrics.jsonl.
    """

    best: dict[str, Any] = dataclasses.field(default_factory=dict)
    last: dict[str, Any] = dataclasses.field(default_factory=dict)
    window: dict[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    wall_seconds: float = 0.0
    waited: float = 0.0
    started_from: dict[str, Any] = dataclasses.field(default_factory=dict)
    examples: str = ""
    count: int = 0
    lines: int = 0


def num_parameters(params: PyTree) -> int:
    """Returns the number of scalar parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
