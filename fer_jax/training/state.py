"""The state of training between two steps."""

from __future__ import annotations

import math
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


def num_parameters(params: PyTree) -> int:
    """Returns the number of scalar parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
