"""Fits methods that take no gradient steps: computes their parameters from the features of all training images."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import flax.traverse_util
import numpy as np

from fer_jax.engine.mesh import is_main, put_replicated
from fer_jax.evaluation.evaluate import Evaluator
from fer_jax.training.setup import Setup
from fer_jax.training.state import TrainState


def fitted(setup: Setup, state: TrainState) -> TrainState:
    """Returns `state` with the parameters that the method's `fit` computes.

    Raises:
        ValueError: if `fit` returns an array that matches no parameter of the model, or one of the wrong shape.
    """
    method = setup.task.method
    assert method.fit is not None
    task = dataclasses.replace(setup.task, profiles=("features",), flip_evaluation=False, corner_evaluation=False)
    evaluator = Evaluator(task, setup.mesh, setup.config.evaluation.batch_size)
    features = evaluator(state.variables(), setup.train)["features"]
    with contextlib.nullcontext() if is_main() else contextlib.redirect_stdout(None):
        found = method.fit(task.model, features, setup.train.targets(), setup.config.seed)

    params: dict[str, Any] = dict(flax.traverse_util.flatten_dict(state.params, sep="/"))
    for path, values in found.items():
        if path not in params or params[path].shape != np.shape(values):
            raise ValueError(f"fit: the model has no parameter {path} of shape {list(np.shape(values))}")
    arrays = {path: np.asarray(values, params[path].dtype) for path, values in found.items()}
    params = flax.traverse_util.unflatten_dict(params | put_replicated(setup.mesh, arrays), sep="/")
    average = state.average and {"params": params, "collections": state.average["collections"]}
    return state.replace(params=params, average=average)
