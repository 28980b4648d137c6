"""A problem with known causes for mechanism tests: classes made of three planted actions that they share.

An image is 12x12 noise with a bright bar for every action of its class, at the action's own place. Classes
share actions as expressions share the movements of brows and mouth.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from fer_jax.methods.method import Clock, Output

# Rows are classes, columns actions: each pair of classes with two actions shares one.
ACTIONS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]], np.float32)
CLASSES = len(ACTIONS)
PLACES = ((1, 1), (5, 6), (9, 2))
SIZE = 12


class TinyTrunk(nn.Module):
    """Two dense layers on the pixels, in place of a ResNet: [B, H, W, 3] -> ([B, width], {})."""

    width: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(64, dtype=self.dtype)(x))
        return nn.relu(nn.Dense(self.width, dtype=self.dtype)(x)), {}


def batch_of(label: np.ndarray, rng: np.random.Generator, noise: float = 0.7) -> dict[str, jax.Array]:
    """Images of the given classes, with random strength of every action."""
    strength = ACTIONS[label] * rng.uniform(0.8, 1.6, (len(label), 3))
    image = rng.normal(0, noise, (len(label), SIZE, SIZE))
    for action, (row, column) in enumerate(PLACES):
        image[:, row : row + 2, column : column + 4] += strength[:, action, None, None]
    return {
        "image": jnp.asarray(np.repeat(image[..., None], 3, axis=-1), jnp.float32),
        "target": jax.nn.one_hot(label, CLASSES),
        "mask": jnp.ones(len(label), jnp.bool_),
    }


def terms_of(method, logits, aux, batch, **options):
    """The loss terms of a method for the outputs of one view, at the first step."""
    clock = Clock(jnp.int32(0), jnp.float32(0.0))
    return method.loss((Output(logits, aux),), batch, clock, **options)


def fit(method, model, *, steps: int, weights=None, seed: int = 0, rate: float = 3e-3, batch: int = 64):
    """Trains `model` on the planted problem; returns its variables and what it monitored at every step."""
    weights = {**method.METHOD.weights, **(weights or {})}
    rng = np.random.default_rng(seed)
    data = batch_of(rng.integers(0, CLASSES, 64 * batch), rng)
    first = jax.tree.map(lambda x: x[:batch], data)
    variables = jax.jit(lambda key: model.init(key, first, train=False))(jax.random.key(seed))
    params, memory = variables["params"], {k: v for k, v in variables.items() if k != "params"}
    optimizer = optax.adam(rate, b1=0.5, b2=0.999)
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, memory, opt_state, index):
        now = jax.tree.map(lambda x: x[index], data)

        def objective(params):
            (logits, aux), new = model.apply({"params": params, **memory}, now, train=True, mutable=list(memory))
            terms = terms_of(method, logits, aux, now)
            total = sum(weights[name] * jnp.mean(term) for name, term in terms.items())
            return total, (new, method.monitor(logits, aux, now))

        (_, (new, seen)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to an integer power
            updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new, opt_state, seen

    history = []
    for _ in range(steps):
        index = jnp.asarray(rng.integers(0, 64 * batch, batch))
        params, memory, opt_state, seen = step(params, memory, opt_state, index)
        history.append(seen)
    return {"params": params, **memory}, history
