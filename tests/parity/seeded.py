"""Weights and inputs as functions of a name: the same numbers on our side and on PyTorch's, so none are stored."""

import zlib
from typing import Any

import flax.traverse_util
import jax
import numpy as np


def array(name, shape, low=None, high=None):
    """float32 of `shape`: normal, or uniform between `low` and `high`; the name is the seed."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    drawn = rng.standard_normal(shape) if low is None else rng.uniform(low, high, shape)
    return drawn.astype(np.float32)


def variables(model, batch, **options):
    """Variables of a module for `batch`, every leaf drawn from its path: none is a trivial zero or one."""
    keys = {name: jax.random.key(0) for name in ("params", "dropout", "noise")}
    shapes = jax.eval_shape(lambda: model.init(keys, batch, **options))
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(shapes, sep="/")
    return flax.traverse_util.unflatten_dict({path: leaf(path, s.shape, s.dtype) for path, s in flat.items()}, sep="/")


def leaf(path, shape, dtype):
    kind = path.rsplit("/", 1)[-1]
    if dtype is np.dtype(bool):
        return np.ones(shape, bool)
    if kind in ("scale", "var"):
        return array(path, shape, 0.7, 1.3)
    if kind == "kernel":
        outputs, units = shape[-1], shape[0] if "units" in path or len(shape) == 3 else 1
        inputs = np.prod(shape) / outputs / units
        return array(path, shape) * np.float32(np.sqrt(2 / inputs))
    return array(path, shape) * np.float32(0.1)
