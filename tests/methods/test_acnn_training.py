"""ACNN's check 6 on a trained network: gates close on covered patches, untold.

Planted problem: each of 24 patches carries a faint pattern of its class, and objects of random texture, far stronger
than any pattern, lie over some of them. The objects of the test have textures that training never saw.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from planted import terms_of
from sklearn.metrics import roc_auc_score

from fer_jax.methods import acnn

CLASSES, SIZE, PATCH, STRIDE = 5, 36, 6, 2
POINTS = np.stack(np.meshgrid(3 + 6 * np.arange(6), 4.5 + 9 * np.arange(4)), axis=-1).reshape(-1, 2)
PATTERNS = np.random.default_rng(5).choice([-1.0, 1.0], (CLASSES, SIZE, SIZE))
EVIDENCE, NOISE = 0.25, 1.0
MODEL = dict(
    num_classes=CLASSES, global_unit=False, width=8, cut="conv2_2", patch=PATCH // STRIDE, patch_features=8,
    gate_channels=8, gate_hidden=8, hidden=32, dropout=0.0,
)  # fmt: skip


def faces(label, rng):
    """Images [N, S, S]: the class's pattern under noise."""
    return EVIDENCE * PATTERNS[label] + NOISE * rng.standard_normal((len(label), SIZE, SIZE))


def behind_objects(images, rng, bank):
    """The same images with a rectangle of texture over each, and which pixels it covers."""
    count = len(images)
    side = rng.integers(12, 22, (2, count, 1))
    center = rng.uniform(4, SIZE - 4, (2, count, 1))
    place = np.arange(SIZE)
    rows, columns = (np.abs(place - c) < s / 2 for c, s in zip(center, side, strict=True))
    covered = rows[:, :, None] & columns[:, None, :]
    if bank == "train":  # grains of one or two pixels
        grains = rng.standard_normal((count, SIZE, SIZE))
        coarse = np.repeat(np.repeat(grains[:, ::2, ::2], 2, axis=1), 2, axis=2)
        texture = np.where(rng.random((count, 1, 1)) < 0.5, grains, coarse)
    else:  # stripes
        angle, period, phase = rng.uniform(0, np.pi, count), rng.uniform(3, 7, count), rng.uniform(0, 6, count)
        along = np.cos(angle)[:, None, None] * place[:, None] + np.sin(angle)[:, None, None] * place
        texture = np.sign(np.sin(2 * np.pi * along / period[:, None, None] + phase[:, None, None]))
    strength = rng.uniform(2, 4, (count, 1, 1))
    return np.where(covered, strength * texture + rng.uniform(-2, 2, (count, 1, 1)), images), covered


def coverage(covered):
    """Fraction [N, 24] of each patch that is covered."""
    windows = [covered[:, int(y - 3) : int(y + 3), int(x - 3) : int(x + 3)] for x, y in POINTS]
    return np.stack([window.mean(axis=(1, 2)) for window in windows], axis=1)


def batch_of(images, label):
    return {
        "image": jnp.asarray(np.repeat(images[..., None], 3, axis=-1), jnp.float32),
        "points": jnp.asarray(np.broadcast_to(POINTS, (len(label), 24, 2)), jnp.float32),
        "target": jax.nn.one_hot(label, CLASSES),
        "mask": jnp.ones(len(label), jnp.bool_),
    }


@functools.cache
def trained(gates, seed, steps=400, batch=64):
    """(accuracy clean, accuracy behind objects, {when: (alpha clean, alpha behind objects)}, coverage).

    The accuracies are of the trained model.
    """
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, 3000)
    clean = faces(label, rng)
    images = np.concatenate([clean, behind_objects(clean, rng, "train")[0]]).astype(np.float32)
    label = np.concatenate([label, label])
    model = acnn.Model(**MODEL, gates=gates)
    first = batch_of(images[:2], label[:2])
    variables = jax.jit(lambda: model.init(jax.random.key(seed), first, train=False))()
    params, stats = variables["params"], variables["batch_stats"]
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    state = optimizer.init(params)

    @jax.jit
    def step(params, stats, state, now):
        def objective(params):
            (logits, aux), new = model.apply(
                {"params": params, "batch_stats": stats}, now, train=True, mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )  # fmt: skip
            return jnp.mean(terms_of(acnn, logits, aux, now)["cross_entropy"]), new["batch_stats"]

        grads, stats = jax.grad(objective, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to an integer power
            updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), stats, state

    for _ in range(steps):
        rows = rng.integers(0, len(label), batch)
        params, stats, state = step(params, stats, state, batch_of(images[rows], label[rows]))

    label = rng.integers(0, CLASSES, 800)
    clean = faces(label, rng)
    objects, covered = behind_objects(clean, rng, "test")
    evaluate = jax.jit(lambda variables, now: model.apply(variables, now, train=False))
    alpha, accuracy = {}, []
    for when, values in (("before", variables), ("after", {"params": params, "batch_stats": stats})):
        outputs = [evaluate(values, batch_of(seen, label)) for seen in (clean, objects)]
        alpha[when] = tuple(np.asarray(aux["alpha"]) for _, aux in outputs)
        accuracy = [float(np.mean(np.argmax(logits, -1) == label)) for logits, _ in outputs]
    return *accuracy, alpha, coverage(covered)


@pytest.mark.slow
def test_6_gates_close_on_what_is_covered():
    """Untrained gates hardly react; trained ones fall on covered patches, and elsewhere less than half as far."""
    _, _, alpha, covered = trained(True, seed=0)
    gone, free = covered >= 0.7, covered == 0
    drop = {when: clean - hidden for when, (clean, hidden) in alpha.items()}
    assert abs(drop["before"][gone].mean()) < 0.05
    fall = drop["after"][gone].mean()
    assert fall > 0.1
    assert np.abs(drop["after"][free]).mean() < fall / 2
    pairs = gone.any(axis=1)
    lower = np.where(gone, drop["after"], 0)[pairs].sum(axis=1) > 0
    assert lower.mean() > 0.65
    told, shut = gone | free, 1 - alpha["after"][1]
    # Unit by unit: each gate has a level of its own.
    areas = [roc_auc_score(gone[told[:, p], p], shut[told[:, p], p]) for p in range(acnn.POINTS)]
    assert np.mean(areas) > 0.65
