"""The optimizer: schedules by hand, parity with PyTorch, parameter groups and their mistakes."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from fer_jax.config.fields import default_config
from fer_jax.errors import UserError
from fer_jax.training.muon import orthogonalized
from fer_jax.training.optimizer import make_optimizer, make_schedule

PARAMS = {
    "trunk": {"conv1": {"kernel": jnp.ones((3, 2))}, "bn1": {"scale": jnp.ones(2), "bias": jnp.zeros(2)}},
    "classifier": {"kernel": jnp.full((2, 4), 0.5), "bias": jnp.ones(4)},
}


def config(optimizer=None, schedule=None) -> Any:
    settings = default_config("test", "test", "baseline")
    settings.optimizer.update(optimizer or {})
    settings.schedule.update(schedule or {})
    return settings


def gradients(step: int):
    keys = jax.random.split(jax.random.key(step), len(jax.tree.leaves(PARAMS)))
    structure = jax.tree.structure(PARAMS)
    leaves = [jax.random.normal(k, p.shape) for k, p in zip(keys, jax.tree.leaves(PARAMS), strict=True)]
    return jax.tree.unflatten(structure, leaves)


def descend(settings, steps=10, total=100, per_epoch=10):
    """(parameters after `steps` updates, optimiser state)."""
    tx, _ = make_optimizer(settings, PARAMS, total, per_epoch)

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    for i in range(steps):
        params, state = step(params, state, gradients(i))
    return params, state


def norm(tree):
    return math.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(tree)))


# Schedules. The learning rate is 1e-3 unless said otherwise; 100 steps, 10 an epoch.


def rates(steps, total=100, per_epoch=10, **schedule):
    f = make_schedule(config(schedule=schedule), total, per_epoch)
    return [float(f(step)) / 1e-3 for step in steps]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"name": "constant"}, {0: 1, 99: 1}),
        ({"name": "linear"}, {0: 1, 25: 0.75, 50: 0.5, 99: 0.01}),  # Caffe's: (1 - step / total)
        ({"name": "linear", "final_fraction": 0.2}, {0: 1, 50: 0.6, 99: 0.208}),
        (
            {"name": "step", "boundaries_epochs": (3.0, 5.5), "factor": 0.1},
            {0: 1, 29: 1, 30: 0.1, 54: 0.1, 55: 0.01},
        ),
        ({"name": "exponential", "factor": 0.5}, {0: 1, 5: math.sqrt(0.5), 10: 0.5, 30: 0.125}),
        ({"name": "cosine", "final_fraction": 0.2}, {0: 1, 49.5: 0.6, 33: 0.2 + 0.8 * 0.75, 99: 0.2}),
        (
            {"name": "one_cycle", "peak_fraction": 0.31, "div_factor": 10.0, "final_div_factor": 100.0},
            {0: 0.1, 15: 0.55, 30: 1, 64.5: 0.5 + 0.5e-3, 99: 1e-3},
        ),
        (
            {"name": "triangular", "peak_fraction": 0.31, "div_factor": 10.0, "final_fraction": 0.0},
            {0: 0.1, 10: 0.4, 30: 1, 53: 2 / 3, 99: 0},
        ),
        ({"name": "constant", "warmup_epochs": 0.5}, {0: 0.2, 2: 0.6, 4: 1, 5: 1, 50: 1}),
        (
            {"name": "step", "boundaries_epochs": (1.0,), "warmup_epochs": 2.0},
            {9: 0.5, 10: 0.055, 19: 0.1, 20: 0.1},
        ),
    ],
)
def test_schedules_by_hand(schedule, expected):
    np.testing.assert_allclose(rates(expected, **schedule), list(expected.values()), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["constant", "linear", "step", "exponential", "cosine", "one_cycle", "triangular"])
@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_runs_have_a_finite_rate(name, total):
    values = rates(range(total), total=total, per_epoch=1, name=name)
    assert np.isfinite(values).all()
    assert min(values) >= 0


def test_the_rate_is_a_traced_function_of_the_step():
    f = make_schedule(config(schedule={"name": "cosine", "warmup_epochs": 1.0}), 100, 10)
    steps = jnp.arange(100)
    np.testing.assert_allclose(jax.jit(jax.vmap(f))(steps), [f(int(s)) for s in steps], rtol=1e-6)


def test_gradients_are_clipped_by_their_global_norm():
    rate = {"name": "sgd", "momentum": 0.0, "learning_rate": 1.0, "clip_norm": 0.5}
    params, _ = descend(config(rate), steps=1)
    moved = jax.tree.map(lambda a, b: a - b, PARAMS, params)
    np.testing.assert_allclose(norm(moved), 0.5, rtol=1e-5)


def test_one_dimensional_parameters_can_be_spared_the_decay():
    settings = {"name": "sgd", "momentum": 0.0, "learning_rate": 1.0, "weight_decay": 0.1, "decay_1d": False}
    tx, _ = make_optimizer(config(settings), PARAMS, 100, 10)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, PARAMS), tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["trunk"]["conv1"]["kernel"], -0.1 * PARAMS["trunk"]["conv1"]["kernel"])
    np.testing.assert_array_equal(updates["trunk"]["bn1"]["scale"], 0)
    np.testing.assert_array_equal(updates["classifier"]["bias"], 0)


def test_a_learned_transition_matrix_does_not_decay():
    settings = config({"name": "sgd", "momentum": 0.0, "learning_rate": 1.0, "weight_decay": 0.1})
    settings.objective, settings.strategy.correction.matrix = "correction", "learned"
    params = {**PARAMS, "transition_weights": jnp.ones((4, 4))}
    tx, _ = make_optimizer(settings, params, 100, 10)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_array_equal(updates["transition_weights"], 0)
    np.testing.assert_allclose(updates["classifier"]["bias"], -0.1)


# Groups


def test_the_first_matching_group_decides():
    groups = (("bn1", {"lr_multiplier": 0.0}), ("trunk/.*", {"lr_multiplier": 0.1}))
    rate = {"name": "sgd", "momentum": 0.0, "learning_rate": 1.0, "groups": groups}
    params, _ = descend(config(rate), steps=1)
    share = jax.tree.map(lambda new, old, grad: np.asarray((old - new) / grad), params, PARAMS, gradients(0))
    np.testing.assert_allclose(share["trunk"]["bn1"]["scale"], 0.0)
    np.testing.assert_allclose(share["trunk"]["conv1"]["kernel"], 0.1, rtol=1e-4)
    np.testing.assert_allclose(share["classifier"]["kernel"], 1.0, rtol=1e-4)


def test_a_group_has_its_own_decay():
    groups = (("classifier", {"weight_decay": 0.0}),)
    rate = {"name": "adamw", "learning_rate": 1.0, "weight_decay": 0.1, "groups": groups}
    tx, _ = make_optimizer(config(rate), PARAMS, 100, 10)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, PARAMS), tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["classifier"]["kernel"], 0)
    np.testing.assert_allclose(updates["trunk"]["conv1"]["kernel"], -0.1, rtol=1e-6)


def test_frozen_parameters_stay_without_state_and_outside_the_clipped_norm():
    groups = (("trunk", {"frozen": True}),)
    params, state = descend(config({"name": "adam", "weight_decay": 0.1, "groups": groups}))
    jax.tree.map(np.testing.assert_array_equal, params["trunk"], PARAMS["trunk"])
    assert not np.allclose(params["classifier"]["kernel"], PARAMS["classifier"]["kernel"])
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * (8 + 4)

    rate = {"name": "sgd", "momentum": 0.0, "learning_rate": 1.0, "clip_norm": 0.5, "groups": groups}
    params, _ = descend(config(rate), steps=1)
    moved = jax.tree.map(lambda a, b: a - b, PARAMS, params)
    np.testing.assert_allclose(norm(moved["classifier"]), 0.5, rtol=1e-5)
    assert norm(moved["trunk"]) == 0


def test_shapes_are_enough_to_build_it():
    shapes = jax.eval_shape(lambda: PARAMS)
    tx, _ = make_optimizer(config({"groups": (("bias", {"lr_multiplier": 2.0}),)}), shapes, 100, 10)
    assert jax.eval_shape(tx.init, shapes) is not None


# Mistakes


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"groups": (("trunc/conv1/kernel", {}),)}, "did you mean 'trunk/conv1/kernel'"),
        ({"groups": (("trunk", {}), ("bn1", {}))}, "earlier group"),
        ({"groups": (("trunk", {"lr_multiplyer": 0.1}),)}, "lr_multiplier"),
        ({"groups": (("tr[unk", {}),)}, "regular expression"),
    ],
)
def test_mistakes_are_named(optimizer, message):
    with pytest.raises(UserError, match=r"optimizer") as error:
        make_optimizer(config(optimizer), PARAMS, 100, 10)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# Muon


def test_muon_makes_the_momentum_of_hidden_convolutions_orthogonal_and_leaves_the_rest_to_adam():
    params = {
        "stem": {"kernel": jnp.ones((3, 3, 1, 8))},
        "conv": {"kernel": jnp.ones((3, 3, 8, 16))},
        "classifier": {"kernel": jnp.ones((16, 7))},
    }
    settings = config(optimizer={"name": "muon", "learning_rate": 0.1, "nesterov": True, "adam_share": 0.2})
    tx, _ = make_optimizer(settings, params, 10, 10)
    keys = jax.random.split(jax.random.key(0), 3)
    grads = {
        name: {"kernel": jax.random.normal(key, params[name]["kernel"].shape)}
        for name, key in zip(params, keys, strict=True)
    }
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    matrix = np.asarray(updates["conv"]["kernel"]).reshape(72, 16)
    singular = np.linalg.svd(matrix, compute_uv=False)
    before = np.linalg.svd(np.asarray(grads["conv"]["kernel"]).reshape(72, 16), compute_uv=False)
    assert before.max() / before.min() > 2
    assert singular.max() / singular.min() < 1.8  # five Newton-Schulz steps bring them to about 0.7 .. 1.2
    first = 0.9 * 0.1 / (1 - 0.9**2) + 1  # Adam's first step with Nesterov momentum, in units of its rate
    for name in ("stem", "classifier"):
        expected = -0.1 * 0.2 * first * np.sign(grads[name]["kernel"])
        np.testing.assert_allclose(updates[name]["kernel"], expected, rtol=1e-3)


@pytest.mark.parametrize("shape", [(3, 3, 32, 64), (1, 1, 16, 64)], ids=["longer than wide", "wider than long"])
@pytest.mark.parametrize("rank", [16, 5])
def test_muon_orthogonalizes_as_optax_does_step_by_step(shape, rank):
    rows = int(np.prod(shape[:3]))
    left, right = jax.random.normal(jax.random.key(0), (rows, rank)), jax.random.normal(jax.random.key(1), (rank, 64))
    gradient = (left @ right).reshape(shape)
    theirs = optax.contrib.scale_by_muon(weight_dimension_numbers=optax.contrib.MuonDimensionNumbers((0, 1, 2), (3,)))
    expected, _ = theirs.update(gradient, theirs.init(gradient))
    scale = max(1, 64 / rows) ** 0.5
    np.testing.assert_allclose(orthogonalized(gradient), scale * expected, atol=1e-3 * np.abs(expected).max())


def test_muon_knows_groups_phases_and_the_limit_of_the_norm():
    kernels = {name: {"kernel": jnp.ones((3, 3, 8, 16))} for name in ("free", "slow", "frozen")}
    kernels |= {"classifier": {"kernel": jnp.ones((16, 7))}}
    settings = config(
        optimizer={
            "name": "muon",
            "learning_rate": 0.1,
            "nesterov": True,
            "clip_norm": 1.0,
            "groups": (("slow", {"lr_multiplier": 0.5}), ("frozen", {"frozen": True})),
        }
    )
    settings.train.phases = ((0.5, {}), (0.5, {"optimizer.name": "sgd"}))
    tx, _ = make_optimizer(settings, kernels, 4, 10)
    gradient = jax.random.normal(jax.random.key(0), (3, 3, 8, 16))
    grads = {name: {"kernel": gradient} for name in ("free", "slow", "frozen")}
    grads |= {"classifier": {"kernel": jnp.ones((16, 7))}}
    state, update, made = tx.init(kernels), jax.jit(tx.update), []
    for _ in range(3):
        updates, state = update(grads, state, kernels)
        made.append(updates)
    np.testing.assert_allclose(made[0]["slow"]["kernel"], 0.5 * made[0]["free"]["kernel"], rtol=1e-5, atol=1e-8)
    assert not np.any(made[0]["frozen"]["kernel"])
    # The third step is SGD's first: along the gradient, which two others and the classifier's share a norm of 1 with.
    limited = gradient / optax.tree.norm({name: g for name, g in grads.items() if name != "frozen"})
    np.testing.assert_allclose(made[2]["free"]["kernel"], -0.1 * 1.9 * limited, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "wrong", [{"nesterov": False}, {"decoupled": False}], ids=["without Nesterov momentum", "with coupled decay"]
)
def test_muon_refuses_what_it_does_not_have(wrong):
    settings = config(optimizer={"name": "muon", "nesterov": True} | wrong)
    with pytest.raises(UserError, match="config.optimizer.nesterov=True, config.optimizer.decoupled=True"):
        make_optimizer(settings, PARAMS, 10, 10)
