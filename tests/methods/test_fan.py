"""FAN: the mechanisms that the paper claims, on its attention module and on whole clips."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.lax import stop_gradient
from planted import terms_of

from fer_jax.methods import fan
from fer_jax.nn.normalization import BatchNorm

MODES = ("score_fusion", "mean", "self", "relation")
SIZE, CLASSES = 6, 7


class Trunk(nn.Module):
    """A small trunk with batch statistics: [N, H, W, 3] -> ([N, 12], {})."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train, mask):
        x = nn.Dense(12)(x.reshape(len(x), -1))
        return nn.relu(BatchNorm(name="bn")(x, train=train, mask=mask)), {}


def make(attention="relation", **fields):
    """A model without dropout, so that training and evaluation can be compared."""
    rates = {f"dropout_{k}": 0.0 for k in ("self", "relation", "clip", "anchor")}
    return fan.Model(num_classes=CLASSES, attention=attention, backbone=Trunk, **{**rates, **fields})


def clips(batch=3, frames=5, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "frames": jnp.asarray(rng.normal(size=(batch, frames, SIZE, SIZE, 3)), jnp.float32),
        "frame_mask": jnp.ones((batch, frames), bool),
        "target": jax.nn.one_hot(jnp.arange(batch) % CLASSES, CLASSES),
    }


def features(batch=3, frames=5, size=12, seed=0):
    values = clips(batch, frames, seed)
    f = np.random.default_rng(seed).normal(size=(batch, frames, size))
    return {k: v for k, v in values.items() if k != "frames"} | {"frame_features": jnp.asarray(f, jnp.float32)}


def init(model, batch, spread=3.0):
    """Variables with attention far from equal, so that a weight that is not used shows."""
    keys = {"params": jax.random.key(1), "dropout": jax.random.key(2)}
    variables = jax.jit(functools.partial(model.init, train=True))(keys, batch)

    def widen(path, value):
        return value * spread if "attention" in path[0].key else value

    return {**variables, "params": jax.tree_util.tree_map_with_path(widen, variables["params"])}


@functools.partial(jax.jit, static_argnames=("model", "train"))
def run(model, variables, batch, train=False):
    if not train:
        return model.apply(variables, batch, train=False)
    return model.apply(variables, batch, train=True, mutable=["batch_stats"])[0]


def pad(batch, extra, content):
    """The same clips with masked frames at the end, all of one number or of noise."""
    rng = np.random.default_rng(11)

    def longer(v):
        shape = (v.shape[0], extra, *v.shape[2:])
        if v.dtype == bool:
            filling = np.zeros(shape, bool)
        else:
            filling = rng.normal(0, 3, shape) if content == "noise" else np.full(shape, content)
        return jnp.concatenate([v, jnp.asarray(filling, v.dtype)], axis=1)

    return batch | {k: longer(v) for k, v in batch.items() if k.startswith("frame")}


# M1


@pytest.mark.parametrize("attention", MODES)
def test_the_order_of_frames_does_not_matter(attention):
    model, batch = make(attention), clips()
    variables = init(model, batch)
    order = np.array([3, 0, 4, 1, 2])
    logits, aux = run(model, variables, batch)
    shuffled, shuffled_aux = run(model, variables, batch | {"frames": batch["frames"][:, order]})
    np.testing.assert_allclose(shuffled, logits, atol=1e-5)
    for name in {"frame_self", "frame_relation", "frame_weights"} & set(aux):
        np.testing.assert_allclose(shuffled_aux[name], aux[name][:, order], atol=1e-6)
    if attention in ("self", "relation"):
        assert np.ptp(aux["frame_weights"], axis=1).min() > 0.02  # or the test shows nothing


# M2


@pytest.mark.parametrize(("attention", "train"), [("relation", False), *((mode, True) for mode in MODES)])
def test_masked_frames_have_no_influence_at_all(attention, train):
    """Not on logits, weights and batch statistics, not through gradients, whatever they show."""
    model, batch = make(attention), clips()
    variables = init(model, batch)

    @jax.jit
    def outcome(batch):
        def objective(frames, params):
            tree = {**variables, "params": params}
            now = batch | {"frames": frames}
            (logits, aux), new = model.apply(tree, now, train=train, mutable=["batch_stats"])
            return jnp.sum(terms_of(fan, logits, aux, now)["cross_entropy"]), (logits, aux["frame_weights"], new)

        (_, seen), grads = jax.value_and_grad(objective, (0, 1), has_aux=True)(batch["frames"], variables["params"])
        return *seen, *grads

    logits, weights, new, d_frames, d_params = outcome(batch)
    for content in (0.0, 7.5, "noise"):
        padded = outcome(pad(batch, 5, content))
        np.testing.assert_allclose(padded[0], logits, atol=1e-5)
        np.testing.assert_allclose(padded[1][:, :5], weights, atol=1e-6)
        np.testing.assert_array_equal(padded[1][:, 5:], 0)
        np.testing.assert_array_equal(padded[3][:, 5:], 0)
        np.testing.assert_allclose(padded[3][:, :5], d_frames, atol=1e-5)
        for a, b in zip(jax.tree.leaves((padded[2], padded[4])), jax.tree.leaves((new, d_params)), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)
    assert np.abs(d_frames).max() > 1e-3


def test_padding_agrees_with_sums_over_a_flat_list_of_frames():
    """The authors' way: all frames in one list, summed clip by clip."""
    model, batch = make(), features(4, 6)
    length = np.array([6, 1, 4, 2])
    batch["frame_mask"] = jnp.asarray(np.arange(6) < length[:, None])
    variables = init(model, batch)
    logits, aux = run(model, variables, batch)

    p = variables["params"]
    f = batch["frame_features"][batch["frame_mask"]]
    clip = jnp.repeat(jnp.arange(4), length)
    add = lambda values: jax.ops.segment_sum(values, clip, 4)  # noqa: E731
    a = nn.sigmoid(f @ p["self_attention"]["kernel"] + p["self_attention"]["bias"])
    anchor = add(a * f) / add(a)
    u = jnp.concatenate([f, anchor[clip]], axis=-1)
    b = nn.sigmoid(u @ p["relation_attention"]["kernel"] + p["relation_attention"]["bias"])
    clip_vector = add(a * b * u) / add(a * b)
    np.testing.assert_allclose(aux["clip"], clip_vector, atol=1e-5)
    np.testing.assert_allclose(aux["frame_weights"][batch["frame_mask"]], ((a * b) / add(a * b)[clip])[:, 0], atol=1e-6)
    np.testing.assert_allclose(logits, clip_vector @ p["classifier"]["kernel"] + p["classifier"]["bias"], atol=1e-5)


@pytest.mark.parametrize("attention", MODES)
def test_a_clip_without_a_face_is_answered_by_the_bias(attention):
    model, batch = make(attention), clips()
    variables = init(model, batch)
    blind = batch | {"frame_mask": batch["frame_mask"].at[1].set(False)}

    def objective(frames):
        logits, aux = run(model, variables, blind | {"frames": frames})
        return jnp.sum(logits**2), (logits, aux["frame_weights"])

    (_, (logits, weights)), slope = jax.value_and_grad(objective, has_aux=True)(batch["frames"])
    bias = variables["params"]["classifier"]["bias"]
    np.testing.assert_allclose(jax.nn.softmax(logits[1]), jax.nn.softmax(bias), atol=1e-6)
    np.testing.assert_array_equal(weights[1], 0)
    np.testing.assert_array_equal(slope[1], 0)
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(logits[0], run(model, variables, batch)[0][0], atol=1e-6)


# M3, M4, M5


def test_without_attention_parameters_the_clip_vector_is_the_mean_twice():
    batch = features()
    model = make()
    variables = init(model, batch, spread=0.0)
    _, aux = run(model, variables, batch)
    mean = batch["frame_features"].mean(axis=1)
    np.testing.assert_allclose(aux["frame_weights"], 1 / 5, rtol=1e-6)
    np.testing.assert_allclose(aux["clip"], np.concatenate([mean, mean], axis=-1), atol=1e-6)
    plain = make("mean")
    _, control = run(plain, init(plain, batch), batch)
    np.testing.assert_allclose(control["anchor"], mean, atol=1e-6)


def test_one_frame_is_its_own_clip_vector_and_twice_a_clip_is_the_clip():
    batch = features(frames=1)
    model = make()
    variables = init(model, batch)
    _, aux = run(model, variables, batch)
    f = batch["frame_features"][:, 0]
    np.testing.assert_allclose(aux["clip"], np.concatenate([f, f], axis=-1), atol=1e-6)
    for attention in MODES:
        model, batch = make(attention), features()
        variables = init(model, batch)
        double = batch | {k: jnp.concatenate([v, v], axis=1) for k, v in batch.items() if k.startswith("frame")}
        np.testing.assert_allclose(run(model, variables, double)[0], run(model, variables, batch)[0], atol=1e-5)


def test_weights_are_sigmoids_over_their_sum_and_no_softmax():
    model, batch = make(), features()
    variables = init(model, batch)
    _, aux = run(model, variables, batch)
    np.testing.assert_allclose(aux["clip"][:, 12:], aux["anchor"], atol=1e-6)
    np.testing.assert_allclose(aux["frame_weights"].sum(axis=1), 1, rtol=1e-6)
    for name in ("frame_self", "frame_relation"):
        assert aux[name].min() > 0
        assert aux[name].max() < 1
    attention = variables["params"]["self_attention"]
    raised = {**variables["params"], "self_attention": {**attention, "bias": attention["bias"] + 2.0}}
    _, other = run(model, {"params": raised}, batch)
    assert np.abs(other["anchor"] - aux["anchor"]).max() > 1e-2


# M6


def test_the_authors_test_path_leaves_relation_attention_out():
    batch = features()
    formula, official = make(), make(official_eval=True)
    variables = init(formula, batch)
    _, right = run(formula, variables, batch)
    _, theirs = run(official, variables, batch)
    np.testing.assert_allclose(theirs["clip"][:, :12], theirs["clip"][:, 12:], atol=1e-5)
    assert np.abs(right["clip"][:, :12] - right["clip"][:, 12:]).max() > 1e-2
    stretch = jnp.sum(right["frame_self"], 1) / jnp.sum(right["frame_self"] * right["frame_relation"], 1)
    np.testing.assert_allclose(theirs["clip"][:, 12:], stretch[:, None] * right["anchor"], rtol=1e-4)
    assert stretch.min() > 1
    for model, agrees in ((formula, True), (official, False)):
        training, _ = run(model, variables, batch, train=True)
        testing, _ = run(model, variables, batch)
        assert np.allclose(training, testing, atol=1e-5) is agrees


# M8


def gradients(model, variables, batch):
    def objective(params):
        logits, aux = inspect.unwrap(run)(model, {**variables, "params": params}, batch, train=True)
        return jnp.sum(terms_of(fan, logits, aux, batch)["cross_entropy"]), logits

    # Compiled anew with every call: it may be one in which a method is intercepted.
    (_, logits), grads = jax.jit(jax.value_and_grad(objective, has_aux=True))(variables["params"])
    return logits, grads["self_attention"]["kernel"], grads["relation_attention"]["kernel"]


def test_both_attentions_learn_and_the_anchor_in_the_relation_input_is_a_path():
    model, batch = make(), features()
    variables = init(model, batch)
    logits, q0, q1 = gradients(model, variables, batch)
    assert np.abs(q0).max() > 1e-4
    assert np.abs(q1[:12]).max() > 1e-4
    assert np.abs(q1[12:]).max() > 1e-4

    def blocked(call, arguments, options, context):
        if isinstance(context.module, fan.RelationScore):
            arguments = (arguments[0], stop_gradient(arguments[1]))
        return call(*arguments, **options)

    with nn.intercept_methods(blocked):
        same, other_q0, _ = gradients(model, variables, batch)
    np.testing.assert_array_equal(same, logits)
    assert np.abs(other_q0 - q0).max() > 1e-5


# Score fusion, dropout, contract


def test_score_fusion_is_the_mean_of_the_frames_probabilities():
    model, batch = make("score_fusion"), features()
    batch["frame_mask"] = batch["frame_mask"].at[0, 3:].set(False)
    variables = init(model, batch)
    logits, _ = run(model, variables, batch)
    classifier = variables["params"]["classifier"]
    alone = jax.nn.softmax(batch["frame_features"] @ classifier["kernel"] + classifier["bias"])
    np.testing.assert_allclose(jnp.exp(logits[0]), alone[0, :3].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(jnp.exp(logits[1:]), alone[1:].mean(axis=1), rtol=1e-5)
    assert model.single_frames
    single = {k: v[:, :1] if k.startswith("frame") else v for k, v in batch.items()}
    terms = terms_of(fan, *run(model, variables, single, train=True), single)
    picked = jnp.sum(single["target"] * jnp.log(alone[:, 0]), axis=-1)
    np.testing.assert_allclose(terms["cross_entropy"], -picked, rtol=1e-5)


@pytest.mark.parametrize(
    ("attention", "rates"),
    [("relation", ("self", "relation", "clip")), ("self", ("self", "anchor")), ("score_fusion", ("frames",))],
)
def test_each_dropout_works_while_training_only(attention, rates):
    batch = features()
    for name in rates:
        model = make(attention, **{f"dropout_{name}": 0.5})
        variables = init(model, batch)
        draws = [
            model.apply(variables, batch, train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (1, 1, 2)
        ]
        np.testing.assert_array_equal(draws[0][0], draws[1][0])
        assert np.abs(draws[0][0] - draws[2][0]).max() > 1e-4
        np.testing.assert_array_equal(draws[0][1]["frame_features"], batch["frame_features"])  # pooled un-dropped
        plain = make(attention)
        np.testing.assert_array_equal(run(model, variables, batch)[0], run(plain, variables, batch)[0])


def test_dropped_relation_input_is_right_on_average():
    """The mean over many masks of q1 . drop(u_i) is q1 . u_i, for the face's half and for the anchor's."""
    batch = features(1, 2)
    score = fan.RelationScore(0.5)
    anchor = batch["frame_features"].mean(axis=1)
    variables: Any = score.init(jax.random.key(0), batch["frame_features"], anchor, train=False)
    want = score.apply(variables, batch["frame_features"], anchor, train=False)
    draw: Any = jax.vmap(
        lambda key: score.apply(variables, batch["frame_features"], anchor, train=True, rngs={"dropout": key})
    )
    many = draw(jax.random.split(jax.random.key(1), 4000))
    np.testing.assert_allclose(many.mean(axis=0), want, atol=5 * float(many.std() / 4000**0.5))
    half = {"params": {**variables["params"], "kernel": variables["params"]["kernel"].at[:12].set(0.0)}}
    alone = score.apply(half, batch["frame_features"], anchor, train=True, rngs={"dropout": jax.random.key(3)})
    assert np.ptp(alone) > 1e-3  # each frame's copy of the anchor is dropped by itself


def test_numbers_are_float32_whatever_the_trunk_computes_in():
    dtype = jnp.bfloat16
    model, batch = fan.Model(num_classes=CLASSES, width=8, depth=6, stem="small", dtype=dtype), clips()
    variables = jax.jit(lambda b: init(model, b))(batch)
    rngs = {"dropout": jax.random.key(0)}
    (logits, aux), _ = jax.jit(lambda v, b: model.apply(v, b, train=True, mutable=["batch_stats"], rngs=rngs))(
        variables, batch
    )
    seen = fan.monitor(logits, aux, batch)
    maps = aux.pop("maps")
    assert maps["last"].dtype == dtype
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((logits, aux, seen, variables)))
    assert {"inequality", "masked_share", "self_mean", "relation_mean"} <= set(seen)


def test_the_monitor_measures_inequality():
    mask = jnp.array([[True, True, True, False], [True, True, False, False], [False] * 4])
    equal = jnp.array([[1 / 3, 1 / 3, 1 / 3, 0], [0.5, 0.5, 0, 0], [0.0] * 4], jnp.float32)
    unequal = equal.at[1].set(jnp.array([1.0, 0, 0, 0]))
    logits, batch = jnp.zeros((3, 7)), {"frame_mask": mask}
    alike = fan.monitor(logits, {"frame_weights": equal}, batch)
    assert float(alike["inequality"]) == pytest.approx(0, abs=1e-6)
    assert float(alike["masked_share"]) == pytest.approx(7 / 12)
    assert float(fan.monitor(logits, {"frame_weights": unequal}, batch)["inequality"]) == pytest.approx(0.5)
