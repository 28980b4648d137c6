"""What a step does with targets, weights, terms, averages and micro-batches, on a model without surprises."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from fer_jax.data.augment.augmentation import Augmentation
from fer_jax.data.augment.preprocessing import Preprocessing
from fer_jax.engine.rng import stream_key
from fer_jax.evaluation.task import Task, eval_step
from fer_jax.methods.method import Method
from fer_jax.training.step import init_state, prepare_targets, train_step


class Linear(nn.Module):
    """No batch statistics: micro-batches must then equal the whole batch exactly."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, batch, *, train):
        x = batch["image"].reshape(len(batch["image"]), -1)
        seen = self.variable("memory", "examples", jnp.zeros, ())
        if train and not self.is_initializing():
            seen.value = seen.value + len(x)
        return nn.Dense(self.num_classes)(x), {"importance": x[:, :2]}


def loss(logits, aux, batch):
    log_p = jax.nn.log_softmax(logits)
    return {"cross_entropy": -jnp.sum(batch["target"] * log_p, -1), "size": jnp.sum(logits**2, -1)}


METHOD = Method(Linear, loss, {"cross_entropy": 1.0, "size": 0.5})


def make_task(**changes):
    task = Task(
        method=METHOD,
        model=Linear(),
        loss_weights={"cross_entropy": 1.0, "size": 0.5},
        loss_options={},
        augmentation=Augmentation(),
        preprocessing=Preprocessing(4),
        profiles=("importance", "absent"),
    )
    return dataclasses.replace(task, **changes)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 8)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (8, 4, 4, 3)), jnp.uint8),
        "label": jnp.asarray(label, jnp.int32),
        "target": jnp.asarray(np.eye(3)[label], jnp.float32),
        "mask": jnp.ones(8, bool),
        "index": jnp.arange(8, dtype=jnp.int32),
    }


def run(task, batch, steps=1, rate=0.1, **options):
    tx, schedule = optax.sgd(rate), lambda step: rate
    state = init_state(task, tx, batch, ema=options.get("ema_decay", 0) > 0)
    step = jax.jit(functools.partial(train_step, task, tx, schedule, **options))
    for _ in range(steps):
        state, metrics = step(state, batch)
    return state, metrics


def test_terms_are_averaged_weighted_and_summed_once(batch):
    _, metrics = run(make_task(), batch)
    total = metrics["loss/cross_entropy"] + 0.5 * metrics["loss/size"]
    np.testing.assert_allclose(metrics["loss/total"], total, rtol=1e-6)
    assert set(metrics) == {
        "loss/cross_entropy", "loss/size", "loss/total", "accuracy", "grad_norm", "update_norm", "learning_rate",
    }  # fmt: skip
    np.testing.assert_allclose(metrics["update_norm"], 0.1 * metrics["grad_norm"], rtol=1e-6)


def test_padding_counts_for_nothing(batch):
    garbage = batch | {"mask": jnp.arange(8) < 5}
    garbage["image"] = batch["image"].at[5:].set(255)
    short = {k: v[:5] for k, v in batch.items()}
    _, ours = run(make_task(), garbage)
    _, theirs = run(make_task(), short)
    for key in ("loss/cross_entropy", "accuracy", "grad_norm"):
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-5)


def test_micro_batches_are_the_whole_batch(batch):
    whole, m1 = run(make_task(), batch, steps=3)
    parts, m4 = run(make_task(), batch, steps=3, accumulate=4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole.params, parts.params)
    np.testing.assert_allclose(m1["loss/total"], m4["loss/total"], rtol=1e-5)
    assert float(parts.collections["memory"]["examples"]) == 24


def test_the_average_follows_the_parameters(batch):
    task, rate, decay = make_task(), 0.1, 0.9
    tx = optax.sgd(rate)
    state = init_state(task, tx, batch, ema=True)
    expected = jax.tree.map(np.asarray, state.params)
    for step in range(4):
        state, _ = train_step(task, tx, lambda s: rate, state, batch, ema_decay=decay)
        d = min(decay, (1 + step) / (10 + step))
        expected = jax.tree.map(lambda e, p, d=d: d * e + (1 - d) * np.asarray(p), expected, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state.average["params"], expected)
    assert state.variables()["params"] is state.average["params"]


def test_label_smoothing_spreads_its_share_over_all_classes(batch):
    smooth = prepare_targets(make_task(label_smoothing=0.3), batch, jnp.int32(0))["target"]
    np.testing.assert_allclose(smooth.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(smooth.max(-1), 0.7 + 0.1, rtol=1e-6)
    np.testing.assert_allclose(smooth.min(-1), 0.1, rtol=1e-6)


def test_class_weights_weigh_examples(batch):
    task = make_task(class_weights=(1.0, 2.0, 5.0), loss_weights={"cross_entropy": 1.0, "size": 0.0})
    weight = np.array([1.0, 2.0, 5.0])[batch["label"]]
    np.testing.assert_allclose(prepare_targets(task, batch, jnp.int32(0))["weight"], weight)
    _, metrics = run(task, batch)
    state = init_state(task, optax.sgd(0.1), batch, ema=False)
    logits = eval_step(task, state.variables(), batch)["logits"]
    per_example = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), np.asarray(batch["label"])[:, None], 1)[
        :, 0
    ]
    np.testing.assert_allclose(metrics["loss/cross_entropy"], np.average(per_example, weights=weight), rtol=1e-5)


def test_drawn_targets_are_one_hot_and_average_to_the_distribution(batch):
    target = jnp.tile(jnp.array([[0.5, 0.3, 0.2]], jnp.float32), (8, 1))
    task = make_task(draw_target=True)
    prepare = jax.jit(functools.partial(prepare_targets, task))
    drawn = [prepare(batch | {"target": target}, jnp.int32(s))["target"] for s in range(300)]
    drawn = np.concatenate(drawn)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    np.testing.assert_allclose(drawn.sum(-1), 1)
    np.testing.assert_allclose(drawn.mean(0), [0.5, 0.3, 0.2], atol=4 * 0.5 / np.sqrt(2400))


def test_flipped_evaluation_is_the_mean_of_two_predictions(batch):
    state = init_state(make_task(), optax.sgd(0.1), batch, ema=False)
    plain = eval_step(make_task(), state.variables(), batch)
    mirrored = eval_step(make_task(), state.variables(), batch | {"image": batch["image"][:, :, ::-1]})
    both = eval_step(make_task(flip_evaluation=True), state.variables(), batch)
    mean = (jax.nn.softmax(plain["logits"]) + jax.nn.softmax(mirrored["logits"])) / 2
    np.testing.assert_allclose(jnp.exp(both["logits"]), mean, rtol=1e-5)
    assert both["importance"].shape == (8, 2)
    assert "absent" not in both


def test_streams_are_independent_of_order_and_of_each_other():
    keys = [stream_key(0, "a", 5), stream_key(0, "b", 5), stream_key(0, "a", 6), stream_key(1, "a", 5)]
    bits = {tuple(np.asarray(jax.random.key_data(k))) for k in keys}
    assert len(bits) == 4
    np.testing.assert_array_equal(jax.random.key_data(stream_key(0, "a", 5)), jax.random.key_data(keys[0]))
