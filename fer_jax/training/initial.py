"""The initial weights of a run with `config.init_from`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fer_jax.training.setup import Setup
from fer_jax.training.state import TrainState
from fer_jax.training.step import init_state
from fer_jax.weights.networks import Shapes
from fer_jax.weights.start import Start, flat_weights, read_start


def read_initial(setup: Setup) -> Start | None:
    """Reads `config.init_from`; None if the run starts from scratch. See `read_start` for the errors."""
    shapes = _shapes(setup.abstract_state())
    return read_start(setup.config, shapes, functools.partial(class_paths, setup))


def class_paths(setup: Setup, classes: Sequence[str]) -> set[str]:
    """Returns the paths of the parameters that cannot be loaded from a model for `classes`, given in output order.

    Unless the classes and their order are the same, these are all parameters whose shape depends on the number of
    classes, even if both models have the same number.
    """
    if list(classes) == list(setup.train.classes):
        return set()
    task = dataclasses.replace(setup.task, model=setup.task.method.wider(setup.task.model))
    batch = setup.template | {"target": jnp.zeros((2, len(setup.train.classes) + 1))}
    others = _shapes(jax.eval_shape(lambda: init_state(task, optax.identity(), batch, ema=False)))
    return {path for path, shape in _shapes(setup.abstract_state()).items() if others[path] != shape}


def with_weights(state: TrainState, start: Start, mesh: Mesh) -> TrainState:
    """Returns the state of step 0 with these weights in the model and, if there is one, in its moving average.

    The optimizer's state does not depend on the parameters at step 0 and stays as it is.
    """

    def filled(params: Any, collections: Any) -> dict[str, Any]:
        variables = start.fill({"params": params, **collections}, mesh)
        return {"params": variables.pop("params"), "collections": variables}

    average = filled(**state.average) if state.average is not None else None
    return state.replace(**filled(state.params, state.collections), average=average)


def _shapes(state: TrainState) -> Shapes:
    return {path: tuple(leaf.shape) for path, leaf in flat_weights(state.params, state.collections).items()}
