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
from fer_jax.methods.method import Clock, Method, View
from fer_jax.methods.rows import write
from fer_jax.training.step import init_state, noise_metrics, partner_rows, prepare_targets, train_step, with_partners


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


def loss(outputs, batch, clock):
    logits = outputs[0].logits
    log_p = jax.nn.log_softmax(logits)
    return {"cross_entropy": -jnp.sum(batch["target"] * log_p, -1), "size": jnp.sum(logits**2, -1)}


METHOD = Method(Linear, loss, {"cross_entropy": 1.0, "size": 0.5})


def at(step):
    return Clock(jnp.int32(step), jnp.float32(0.0))


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
    smooth = prepare_targets(make_task(label_smoothing=0.3), batch, None, at(0))["target"]
    np.testing.assert_allclose(smooth.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(smooth.max(-1), 0.7 + 0.1, rtol=1e-6)
    np.testing.assert_allclose(smooth.min(-1), 0.1, rtol=1e-6)


def test_class_weights_weigh_examples(batch):
    task = make_task(class_weights=(1.0, 2.0, 5.0), loss_weights={"cross_entropy": 1.0, "size": 0.0})
    weight = np.array([1.0, 2.0, 5.0])[batch["label"]]
    np.testing.assert_allclose(prepare_targets(task, batch, None, at(0))["weight"], weight)
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
    prepare = jax.jit(lambda batch, step: prepare_targets(task, batch, None, at(step)))
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


class Looking(nn.Module):
    """Keeps the images of its last pass, and how many there were."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, batch, *, train):
        passes = self.variable("seen", "passes", jnp.zeros, ())
        if train and not self.is_initializing():
            passes.value = passes.value + 1
        logits = nn.Dense(self.num_classes)(jnp.mean(batch["image"], (1, 2)))
        fixed = jnp.arange(16.0)  # as many as the rows of two views together
        return logits, {"image": batch["image"], "passes": passes.value, "fixed": fixed}


def views_of(views, batch, mix=None, **changes):
    """The outputs of a step's views, and how often the running statistics moved."""
    seen = {}

    def looking(outputs, batch, clock):
        seen["outputs"] = jax.lax.stop_gradient(outputs)
        return {"zero": jnp.zeros(len(batch["mask"]))}

    task = make_task(method=Method(Looking, looking, {"zero": 1.0}, views=views, mix=mix), model=Looking(), **changes)
    task = dataclasses.replace(task, loss_weights={"zero": 1.0})
    with jax.disable_jit():
        state = init_state(task, optax.sgd(0.1), batch, ema=False)
        state, _ = train_step(task, optax.sgd(0.1), lambda s: 0.1, state, batch)
    return seen["outputs"], float(state.collections["seen"]["passes"])


def test_a_mirrored_view_is_the_mirror_image_of_what_augmentation_drew(batch):
    outputs, passes = views_of((View(), View(mirror=True)), batch)
    np.testing.assert_array_equal(outputs[0].aux["image"], outputs[1].aux["image"][:, :, ::-1])
    assert passes == 2
    _, passes = views_of((View(), View(mirror=True, stats="frozen")), batch)
    assert passes == 1


def test_a_mirrored_view_is_of_the_same_mixture(batch):
    mix = lambda view, key: view | {"image": view["image"].at[:, :, :1].set(view["image"][::-1, :, :1])}  # noqa: E731
    outputs, _ = views_of((View(), View(mirror=True)), batch, mix)
    np.testing.assert_array_equal(outputs[0].aux["image"], outputs[1].aux["image"][:, :, ::-1])


def test_views_in_one_pass_are_the_views_one_after_another(batch):
    outputs, passes = views_of((View(), View(mirror=True, stats="joint")), batch)
    alone, _ = views_of((View(), View(mirror=True)), batch)
    assert passes == 1
    for one, other in zip(outputs, alone, strict=True):
        assert one.logits.shape == (8, 3)
        np.testing.assert_allclose(one.logits, other.logits, rtol=1e-6)
        np.testing.assert_array_equal(one.aux["image"], other.aux["image"])
        assert one.aux["fixed"].shape == (16,)


def test_a_smaller_view_has_its_share_of_the_side(batch):
    outputs, _ = views_of((View(), View(size=0.5)), batch)
    assert outputs[1].aux["image"].shape == (8, 2, 2, 3)


def test_a_view_may_draw_erasing_of_its_own_and_go_without_noise(batch):
    views = (View(), View(), View(erase="own"), View(noise=False))
    augmentation = Augmentation(("noise:50", "erase:1,area=0.2-0.4"))
    outputs, _ = views_of(views, batch, augmentation=augmentation)
    first, same, own, clean = (np.asarray(output.aux["image"]) for output in outputs)
    erased, of_own = (first == 0).all(-1), (own == 0).all(-1)
    np.testing.assert_array_equal(first, same)
    assert (erased != of_own).any()
    neither = ~(erased | of_own)
    np.testing.assert_array_equal(first[neither], own[neither])  # the same noise
    np.testing.assert_array_equal((clean == 0).all(-1), erased)
    assert np.abs(first - clean).max() > 0.1


def memory_of_twelve(fields):
    return {"seen": np.zeros(12, np.int32), "step": np.zeros(12, np.float32)}


def remembering(**hooks):
    """A method that keeps the number of times that it has seen each of 12 examples, and its last step."""

    def remember(memory, outputs, batch, clock):
        step = jnp.full(len(batch["index"]), clock.step.astype(jnp.float32)) + jnp.arange(len(batch["index"])) / 100
        return {
            "seen": write(memory["seen"], batch["index"], memory["seen"][batch["index"]] + 1, batch["mask"]),
            "step": write(memory["step"], batch["index"], step, batch["mask"]),
        }

    return Method(Linear, loss, METHOD.weights, memory=memory_of_twelve, remember=remember, **hooks)


def test_memory_is_written_by_index_and_the_last_of_two_rows_counts(batch):
    task = make_task(method=remembering())
    tx = optax.sgd(0.1)
    state = init_state(task, tx, batch, ema=True, memory=jax.tree.map(jnp.asarray, memory_of_twelve({})))
    index = jnp.array([3, 5, 3, 0, 1, 2, 7, 9])
    now = batch | {"index": index, "mask": jnp.arange(8) != 7}
    state, _ = train_step(task, tx, lambda s: 0.1, state, now, ema_decay=0.5)
    np.testing.assert_array_equal(state.memory["seen"], [1, 1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 0])
    assert state.memory["step"][3] == np.float32(0.02)  # of its second row
    assert set(state.average) == {"params", "collections"}


def test_targets_are_changed_before_smoothing_loss_and_accuracy(batch):
    def targets(memory, batch, clock):
        flipped = jnp.where(memory["seen"][batch["index"]] > 0, 2, 0)
        return batch | {"target": jax.nn.one_hot(flipped, 3)}

    task = make_task(method=remembering(targets=targets), label_smoothing=0.3, class_weights=(1.0, 2.0, 5.0))
    memory = {"seen": jnp.arange(12) % 2, "step": jnp.zeros(12)}
    prepared = prepare_targets(task, batch, memory, at(0))
    target = prepared["target"]
    np.testing.assert_array_equal(jnp.argmax(target, -1), [0, 2] * 4)
    np.testing.assert_array_equal(prepared["weight"], [1, 5] * 4)
    np.testing.assert_allclose(target.max(-1), 0.8, rtol=1e-6)


def test_the_mean_divides_by_what_was_selected(batch):
    def select(terms, outputs, batch, clock):
        return (terms["size"] > 0).astype(jnp.float32) * (batch["index"] < 3)

    task = make_task(method=dataclasses.replace(METHOD, select=select))
    _, chosen = run(task, batch)
    _, three = run(make_task(), {k: v[:3] for k, v in batch.items()})
    np.testing.assert_allclose(chosen["loss/total"], three["loss/total"], rtol=1e-5)
    np.testing.assert_allclose(chosen["grad_norm"], three["grad_norm"], rtol=1e-5)
    assert chosen["selected"] == 3 / 8


def test_the_clock_counts_steps_and_epochs(batch):
    def timed(outputs, batch, clock):
        return {"cross_entropy": clock.epoch + jnp.zeros(8), "size": clock.step.astype(jnp.float32) + jnp.zeros(8)}

    task = make_task(method=dataclasses.replace(METHOD, loss=timed), steps_per_epoch=2.5)
    _, metrics = run(task, batch, steps=4)
    assert metrics["loss/size"] == 3
    assert metrics["loss/cross_entropy"] == pytest.approx(3 / 2.5)


def test_partners_come_after_the_views(batch):
    def partners(index, memory, key):
        return (index + 1) % 8

    def of_partners(outputs, batch, clock):
        assert len(outputs) == 2
        return {"cross_entropy": jnp.sum(outputs[1].aux["importance"], -1), "size": batch["partner_label"] + 0.0}

    task = make_task(method=dataclasses.replace(METHOD, loss=of_partners, partners=partners))
    theirs = {k: jnp.roll(v, -1, axis=0) for k, v in batch.items()}
    state = init_state(task, optax.sgd(0.1), batch, ema=False)
    np.testing.assert_array_equal(partner_rows(task, state, batch), theirs["index"])
    _, metrics = run(task, with_partners(batch, theirs))
    expected = (batch["image"].reshape(8, -1)[:, :2] / 255 - 0.5) / 0.5
    np.testing.assert_allclose(metrics["loss/cross_entropy"], jnp.mean(jnp.sum(expected, -1)), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss/size"], jnp.mean(batch["label"]), rtol=1e-6)


def test_parameters_of_training_alone_are_dropped_at_test():
    method = dataclasses.replace(METHOD, training_only=("sigma",))
    assert method.at_test({"trunk": 1, "sigma": 2}) == {"trunk": 1}


def test_shares_of_wrong_labels_that_are_memorized_and_selected(batch):
    def half(terms, outputs, batch, clock):
        return (batch["index"] < 4).astype(jnp.float32)

    clean = batch["label"].at[jnp.array([1, 5, 6, 7])].add(1) % 3
    mask = batch["mask"].at[7].set(False)  # of three wrong labels one is selected
    task = make_task(method=dataclasses.replace(METHOD, select=half))
    _, metrics = run(task, batch | {"clean_label": clean, "mask": mask})
    np.testing.assert_allclose(metrics["selected_wrong"], 1 / 3, rtol=1e-6)
    logits = jax.nn.one_hot(jnp.where(batch["index"] == 1, batch["label"], clean), 3)
    found = noise_metrics(logits, batch | {"clean_label": clean, "mask": mask}, None)
    np.testing.assert_allclose(found["memorized"], 1 / 3, rtol=1e-6)
    assert set(found) == {"memorized"}
