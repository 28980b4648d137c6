"""M7: attention finds the frames that show the expression, on planted clips in which a plain mean is misled."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from planted import terms_of
from scipy.stats import spearmanr

from fer_jax.methods import fan

CLASSES, FRAMES, SIZE, NOISE, LURE = 7, 12, 10, 2.0, 0.6
ONSET, RISE = (0.4, 0.7), 0.25  # of the clip
PATTERNS = np.random.default_rng(7).choice([-1.0, 1.0], (CLASSES + 1, SIZE, SIZE)) * 0.6


class Trunk(nn.Module):
    """One linear layer on the pixels: [N, H, W, 3] -> ([N, 24], {}). It cannot tell neutral frames off by itself."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train, mask):
        return nn.Dense(24)(x[..., 0].reshape(len(x), -1)), {}


def planted_clips(count, rng):
    """Clips from neutral to apex: (frames [N, T, H, W, 3], label [N], blend [N, T]).

    The class's pattern is blended in from 0 to 1. What it takes the place of is neutral, which has a pattern of its
    own, with a faint lure: the pattern of another class, the same all through the clip. The mean of all frames holds
    nearly as much of the lure as of the class.
    """
    label = rng.integers(0, CLASSES, count)
    lure = (label + rng.integers(1, CLASSES, count)) % CLASSES
    onset = rng.uniform(*ONSET, (count, 1))
    blend = np.clip((np.linspace(0, 1, FRAMES) - onset) / RISE, 0, 1)
    mixed = blend[..., None, None] * PATTERNS[label][:, None]
    mixed = mixed + (1 - blend)[..., None, None] * (PATTERNS[CLASSES] + LURE * PATTERNS[lure][:, None])
    mixed = mixed + rng.normal(0, NOISE, mixed.shape)
    return np.repeat(mixed[..., None], 3, axis=-1).astype(np.float32), label, blend


@functools.cache
def trained(attention, seed=0, shuffled=False, steps=1500):
    """Trains on three frames of each clip, one from each third; returns (accuracy, weights, blend) of other clips."""
    rng = np.random.default_rng(seed)
    frames, label, _ = planted_clips(1500, rng)
    if shuffled:
        label = rng.permutation(label)
    model = fan.Model(num_classes=CLASSES, attention=attention, backbone=Trunk)
    targets = np.eye(CLASSES, dtype=np.float32)

    def batch_of(frames, label):
        mask = jnp.ones(frames.shape[:2], bool)
        return {"frames": jnp.asarray(frames), "frame_mask": mask, "target": jnp.asarray(targets[label])}

    keys = {"params": jax.random.key(seed), "dropout": jax.random.key(0)}
    params = model.init(keys, batch_of(frames[:2], label[:2]), train=True)["params"]
    optimizer = optax.adamw(3e-3, weight_decay=1e-3)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, batch, key):
        def objective(params):
            logits, aux = model.apply({"params": params}, batch, train=True, rngs={"dropout": key})
            return jnp.mean(terms_of(fan, logits, aux, batch)["cross_entropy"])

        grads = jax.grad(objective)(params)
        with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to an integer power
            updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    third = FRAMES // 3
    for number in range(steps):
        rows = rng.integers(0, len(frames), 48)
        places = rng.integers(0, third, (48, 3)) + third * np.arange(3)
        now = batch_of(frames[rows[:, None], places], label[rows])
        params, state = step(params, state, now, jax.random.fold_in(jax.random.key(seed + 1), number))
    frames, label, blend = planted_clips(700, rng)
    logits, aux = jax.jit(lambda p, b: model.apply({"params": p}, b, train=False))(params, batch_of(frames, label))
    return float(np.mean(np.argmax(logits, -1) == label)), np.asarray(aux["frame_weights"]), blend


def ratio(weights):
    """Mean weight in the last third of the clips over that in the first."""
    return weights[:, -FRAMES // 3 :].mean() / weights[:, : FRAMES // 3].mean()


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["self", "relation"])
def test_attention_learns_where_the_expression_is(attention):
    accuracy, weights, blend = trained(attention)
    plain, equal, _ = trained("mean")
    spearman = np.mean([spearmanr(w, b)[0] for w, b in zip(weights, blend, strict=True)])
    assert ratio(equal) == pytest.approx(1)
    assert plain < 0.8, "the plain mean solves it: the test could not fail"
    assert spearman > 0.5
    assert ratio(weights) > 1.5
    assert accuracy > plain + 0.1


@pytest.mark.slow
def test_labels_without_meaning_teach_no_attention():
    accuracy, weights, _ = trained("relation", shuffled=True)
    assert accuracy < 0.3
    assert 0.7 < ratio(weights) < 1.4
