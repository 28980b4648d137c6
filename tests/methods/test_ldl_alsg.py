"""LDL-ALSG: the graph does not see where a face is, and its mean over draws is that over edges."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import methods
from fer_jax.errors import UserError
from fer_jax.methods.method import Clock, Output
from fer_jax.methods.objective import load
from fer_jax.methods.strategies.ldl_alsg import aligned, divergence, graph

CLOCK = Clock(jnp.int32(0), jnp.float32(0.0))
RNG = np.random.default_rng(0)


def strategy(**options) -> Any:
    return load("ldl_alsg").apply(methods.load("baseline"), **options)


def test_aligned_shapes_do_not_depend_on_place_size_and_turn():
    shapes = RNG.normal(size=(1, 68, 2)) + 0.05 * RNG.normal(size=(6, 68, 2))
    angle = RNG.uniform(-0.5, 0.5, 6)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    moved = RNG.uniform(20, 40, (6, 1, 1)) * shapes @ turn + RNG.uniform(0, 48, (6, 1, 2))
    unknown = np.full((1, 68, 2), np.nan)

    def apart(x):
        return np.linalg.norm(x[:, None] - x[None], axis=-1)[:6, :6]

    found = aligned(np.concatenate([moved, unknown]))
    np.testing.assert_allclose(apart(found), apart(aligned(shapes)), atol=1e-4)
    assert np.isnan(found[6]).all()
    eyes = found[:6].reshape(6, 68, 2)[:, [36, 45]]
    np.testing.assert_allclose(np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=-1), 1, rtol=1e-5)


def test_the_graph_is_that_of_all_distances():
    x = RNG.normal(size=(40, 3))
    x[7] = np.nan
    found = graph(x, 4)
    apart = np.linalg.norm(x[:, None] - x[None], axis=-1)
    apart[np.arange(40), np.arange(40)] = np.inf
    apart = np.where(np.isnan(apart), np.inf, apart)
    others = np.delete(np.arange(40), 7)
    np.testing.assert_array_equal(found["neighbors"][others], np.argsort(apart, axis=1)[others, :4])
    near = np.sort(apart, axis=1)[others, :4]
    weights = np.exp(-(near**2) / (2 * np.median(near) ** 2))
    np.testing.assert_allclose(found["weights"].mean(), weights.mean(), rtol=1e-5)  # over edges
    np.testing.assert_allclose(found["weights"][others], 40 / 39 * weights, rtol=1e-5)
    assert (found["neighbors"][7] == 7).all()
    assert not found["weights"][7].any()
    with pytest.raises(UserError, match="k=40: 39 training faces"):
        graph(x, 40)


def test_the_mean_over_draws_is_the_mean_over_edges():
    n, k = 12, 3
    fields = {"landmarks": RNG.normal(size=(n, 68, 2)), "action_units": RNG.uniform(0, 5, (n, 17))}
    method = strategy(k=k)
    memory = jax.tree.map(jnp.asarray, method.memory(fields))
    logits, index = jnp.asarray(RNG.normal(size=(n, 5)), jnp.float32), jnp.arange(n)
    batch = method.targets(memory, {"target": jax.nn.one_hot(index % 5, 5), "index": index}, CLOCK)

    @jax.jit
    def terms(key):
        rows = method.partners(index, memory, key)
        outputs = (Output(logits, {}), Output(logits[rows], {}))
        return method.loss(outputs, {**batch, "partner_index": rows}, CLOCK)

    many = jax.vmap(terms)(jax.random.split(jax.random.key(0), 4000))
    for name in fields:
        a, j = memory[f"{name}_weights"], memory[f"{name}_neighbors"]
        edges = a * divergence(logits[:, None], logits[j])
        np.testing.assert_allclose(many[name].mean(axis=0), edges.mean(axis=1), rtol=0.15, atol=0.02)


def test_the_form_within_a_batch_sums_over_its_edges():
    n, k, alpha = 6, 2, 0.1
    fields = {"action_units": RNG.uniform(0, 5, (n, 17))}
    method = strategy(form="pyldl", k=k, alpha=alpha, landmarks=0.0)
    memory = jax.tree.map(jnp.asarray, method.memory(fields))
    logits, index = jnp.asarray(RNG.normal(size=(n, 5)), jnp.float32), jnp.arange(n)
    mask = index < 5  # the last one is padding
    batch = {"target": jax.nn.one_hot(index % 5, 5), "index": index, "mask": mask}
    term = method.loss((Output(logits, {}),), method.targets(memory, batch, CLOCK), CLOCK)["action_units"]
    edges = graph(fields["action_units"][:5], k)["neighbors"]
    total = sum(float(divergence(logits[i], logits[j])) for i in range(5) for j in edges[i])
    assert term[5] == 0
    assert float(jnp.mean(term)) == pytest.approx(alpha * total, rel=1e-4)
    same = method.loss((Output(logits[:1].repeat(n, axis=0), {}),), method.targets(memory, batch, CLOCK), CLOCK)
    np.testing.assert_allclose(same["action_units"], 0, atol=1e-5)


def test_landmarks_that_are_absent_name_the_command():
    with pytest.raises(UserError, match="landmarks of .* not known; run `python -m tfds_builders landmarks"):
        strategy().memory({"label": np.zeros(3)})
