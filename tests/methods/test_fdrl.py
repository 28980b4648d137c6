"""FDRL's equations, losses and centers: the mechanism checks that need no training (C1, C3-C6, C10)."""

import functools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from planted import terms_of

from fer_jax.errors import UserError
from fer_jax.methods import fdrl

M, D, C = 4, 8, 6
ONE = jnp.ones(8, jnp.bool_)


class GivenFeatures(nn.Module):
    """A trunk whose feature is the image's own numbers: [B, 1, 1, P] -> [B, P]."""

    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        return x[:, 0, 0], {}


def small(**fields):
    settings = {"num_features": M, "feature_dim": D, "backbone": GivenFeatures} | fields
    return fdrl.Model(num_classes=C, **settings)


def batch(size=8, width=16, seed=0, **extra):
    key, other = jax.random.split(jax.random.key(seed))
    label = jax.random.randint(other, (size,), 0, C)
    return {
        "image": jnp.abs(jax.random.normal(key, (size, 1, 1, width))),
        "target": jax.nn.one_hot(label, C),
        "mask": jnp.ones(size, jnp.bool_),
        **extra,
    }


@functools.partial(jax.jit, static_argnums=0)
def init(model, data):
    return model.init(jax.random.key(1), data, train=False)


@functools.partial(jax.jit, static_argnums=0)
def train_step(model, variables, data):
    """((logits, aux), new centers) of a training batch."""
    return model.apply(variables, data, train=True, mutable=["centers"])


@functools.partial(jax.jit, static_argnums=0)
def evaluate(model, variables, data):
    """(logits, aux)."""
    return model.apply(variables, data, train=False)


# C1: compactness


def test_c1_compactness_gradient():
    latent = jax.random.normal(jax.random.key(0), (8, M, D))
    centers = jax.random.normal(jax.random.key(1), (M, D))

    def mean_loss(latent, centers):
        return jnp.mean(fdrl.compactness(latent, centers))

    to_latent, to_centers = jax.grad(mean_loss, argnums=(0, 1))(latent, centers)
    np.testing.assert_allclose(to_latent, 2 / 8 * (latent - centers), atol=1e-6)
    np.testing.assert_array_equal(to_centers, 0)
    closer = latent - 0.5 * to_latent
    before, after = (np.linalg.norm(np.asarray(x - centers), axis=-1) for x in (latent, closer))
    assert (after < before).all()


def test_c1_compactness_vanishes_only_at_the_centers():
    centers = jax.random.normal(jax.random.key(1), (M, D))
    latent = jnp.broadcast_to(centers, (8, M, D))
    np.testing.assert_array_equal(fdrl.compactness(latent, centers), 0)
    assert fdrl.compactness(latent.at[3, 0, 0].add(0.1), centers)[3] > 0


def test_c1_centers_are_no_parameters():
    variables = init(small(), batch())
    assert set(variables) == {"params", "centers"}
    assert not any("center" in jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(variables["params"]))


# The centers' rule


def test_first_batch_sets_the_centers_and_later_ones_move_them():
    model, data = small(), batch()
    variables = init(model, data)
    assert not variables["centers"]["initialized"]
    (_, aux), new = train_step(model, variables, data)
    latent, alpha = np.asarray(aux["latent"]), np.asarray(aux["importance"])
    np.testing.assert_allclose(aux["latent_centers"], latent.mean(0), atol=1e-6)
    np.testing.assert_allclose(new["centers"]["compactness"], latent.mean(0), atol=1e-6)
    np.testing.assert_allclose(aux["importance_centers"], np.tile(alpha.mean(0), (C, 1)), atol=1e-6)
    assert new["centers"]["initialized"]

    later = batch(seed=7)
    (_, aux), newer = train_step(model, {**variables, **new}, later)
    c, w = np.asarray(new["centers"]["compactness"]), np.asarray(new["centers"]["importance"])
    np.testing.assert_array_equal(aux["latent_centers"], c)  # the losses see the centers before the update
    np.testing.assert_array_equal(aux["importance_centers"], w)
    latent, alpha = np.asarray(aux["latent"]), np.asarray(aux["importance"])
    label = np.asarray(later["target"]).argmax(1)
    np.testing.assert_allclose(
        newer["centers"]["compactness"], c - 0.5 * (c - latent).sum(0) / (1 + len(latent)), atol=1e-6
    )
    for k in range(C):
        mine = alpha[label == k]
        moved = w[k] - 0.5 * (w[k] - mine).sum(0) / (1 + len(mine))
        np.testing.assert_allclose(newer["centers"]["importance"][k], moved, atol=1e-6)


def test_padding_moves_no_center_and_weighs_in_no_loss():
    model, data = small(), batch()
    variables = init(model, data)
    half = jax.tree.map(lambda x: x[:5], data)
    padded = {**data, "image": data["image"].at[5:].mul(100.0), "mask": jnp.arange(8) < 5}
    (logits, aux), new = train_step(model, variables, half)
    (logits_p, aux_p), new_p = train_step(model, variables, padded)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new, new_p)
    terms, terms_p = terms_of(fdrl, logits, aux, half), terms_of(fdrl, logits_p, aux_p, padded)
    for name in terms:
        np.testing.assert_allclose(terms_p[name][:5], terms[name], rtol=1e-5, atol=1e-6)
    seen, seen_p = fdrl.monitor(logits, aux, half), fdrl.monitor(logits_p, aux_p, padded)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), seen, seen_p)


def test_evaluation_changes_no_center_and_needs_no_labels():
    model, data = small(), batch()
    variables = init(model, data)
    _, new = model.apply(variables, {"image": data["image"]}, train=False, mutable=["centers"])
    jax.tree.map(np.testing.assert_array_equal, new["centers"], variables["centers"])


# C3, C4: balance and the scale of alpha


def test_c3_balance():
    mask = ONE
    np.testing.assert_allclose(fdrl.balance(jnp.full((8, M), 1 / M), mask), 0.0, atol=1e-7)
    np.testing.assert_allclose(fdrl.balance(jnp.full((8, M), 0.7), mask), M * (0.7 - 1 / M), rtol=1e-6)
    alpha = jax.random.uniform(jax.random.key(0), (8, M))
    value = fdrl.balance(alpha, mask)
    np.testing.assert_allclose(fdrl.balance(alpha[::-1], mask), value, rtol=1e-6)
    shift = jnp.array([0.2, -0.2] * 4)[:, None]
    np.testing.assert_allclose(fdrl.balance(alpha + shift, mask), value, rtol=1e-6)
    twice = fdrl.balance(jnp.concatenate([alpha, alpha]), jnp.ones(16, jnp.bool_))
    np.testing.assert_allclose(twice, value, rtol=1e-6)


@pytest.mark.parametrize(
    ("alpha", "mean_alpha", "tolerance", "start", "start_tolerance"),
    [
        ("literal", 64, 5, 575, 45),
        ("literal_bias", 1 / 9, 0.05, 0, 1),
        ("mean", 0.5, 0.04, 3.5, 0.4),
        ("simplex", 1 / 9, 1e-6, 0, 0.1),
    ],
)
def test_c4_start_values(alpha, mean_alpha, tolerance, start, start_tolerance):
    model = small(num_features=9, feature_dim=128, alpha=alpha)
    data = batch(size=64, width=512)
    (logits, aux), _ = train_step(model, init(model, data), data)
    assert abs(float(aux["importance"].mean()) - mean_alpha) <= tolerance
    terms = terms_of(fdrl, logits, aux, data)
    assert terms["balance"].shape == (64,)
    assert abs(float(terms["balance"][0]) - start) <= start_tolerance


# C5: distribution


def test_c5_distribution_vanishes_at_the_class_centers():
    centers = jax.random.uniform(jax.random.key(0), (C, M))
    label = jnp.array([0, 1, 2, 2])
    np.testing.assert_array_equal(fdrl.distribution(centers[label], centers, label), 0)
    grad = jax.grad(lambda c: fdrl.distribution(centers[label] + 0.1, c, label).sum())(centers)
    np.testing.assert_array_equal(grad, 0)


def test_c5_only_the_true_class_moves():
    centers = jax.random.uniform(jax.random.key(0), (C, M))
    alpha = jax.random.uniform(jax.random.key(1), (8, M))
    moved = fdrl.move_class_centers(centers, alpha, jnp.full(8, 2), ONE, 0.5)
    still = np.arange(C) != 2
    np.testing.assert_array_equal(moved[still], centers[still])
    assert np.abs(moved[2] - centers[2]).min() > 0


# C6: the algebra of Inter-RM


@pytest.mark.parametrize("edge", fdrl.EDGES)
def test_c6_edges(edge):
    g = jax.nn.relu(jax.random.normal(jax.random.key(0), (8, M, D)))
    omega = np.asarray(fdrl.relations(g, edge))
    np.testing.assert_allclose(omega, omega.transpose(0, 2, 1), atol=1e-6)
    assert (omega[:, np.arange(M), np.arange(M)] == 0).all()
    assert (omega >= 0).all()
    assert (omega <= 1).all() if edge == "ones" else (omega < 1).all()


def test_c6_edges_by_hand():
    g = jnp.array([[[3.0, 0.0], [0.0, 4.0]]]) / 10
    expected = {
        "euclid": math.tanh(0.5),
        "cosine": 0.0,
        "dot": 0.0,
        "ones": 1.0,
    }
    for edge, value in expected.items():
        np.testing.assert_allclose(fdrl.relations(g, edge)[0], [[0, value], [value, 0]], atol=1e-6)
    parallel = jnp.array([[[1.0, 1.0], [2.0, 2.0]]])
    np.testing.assert_allclose(fdrl.relations(parallel, "cosine")[0, 0, 1], math.tanh(1), rtol=1e-6)
    np.testing.assert_allclose(fdrl.relations(parallel, "dot")[0, 0, 1], math.tanh(4 / 2**0.5), rtol=1e-6)


def test_c6_equal_messages_exchange_nothing():
    g = jnp.broadcast_to(jax.random.uniform(jax.random.key(0), (8, 1, D)), (8, M, D))
    np.testing.assert_array_equal(fdrl.relations(g, "euclid"), 0)


def test_c6_constant_graph_sums_the_other_messages():
    model, data = small(edge="ones"), batch()
    _, aux = evaluate(model, init(model, data), data)
    g = aux["messages"]
    np.testing.assert_allclose(aux["inter"], g.sum(1, keepdims=True) - g, atol=1e-5)


def test_c6_delta_one_leaves_inter_rm_out():
    data = batch()
    both, intra = small(delta=1.0), small(modules="intra")
    variables = init(both, data)
    logits, aux = evaluate(both, variables, data)
    np.testing.assert_allclose(aux["expression"], aux["intra"].sum(1), rtol=1e-6)
    params = {k: v for k, v in variables["params"].items() if k != "inter_rm"}
    without = evaluate(intra, {**variables, "params": params}, data)[0]
    np.testing.assert_allclose(without, logits, rtol=1e-5, atol=1e-6)


def test_the_equations_feature_by_feature():
    """The whole head again, one latent feature at a time, in numpy."""
    model, data = small(alpha="literal", delta=0.3), batch()
    variables = init(model, data)
    logits, aux = evaluate(model, variables, data)
    p = jax.tree.map(np.asarray, variables["params"])
    x = np.asarray(data["image"])[:, 0, 0]

    def fc(part, j, v):
        return v @ p[part]["fc"]["kernel"][j] + p[part]["fc"]["bias"][j]

    latent = [np.maximum(fc("fdn", j, x), 0) for j in range(M)]
    alpha = [(1 / (1 + np.exp(-fc("intra_rm", j, latent[j])))).sum(1) for j in range(M)]
    f = [alpha[j][:, None] * latent[j] for j in range(M)]
    g = [np.maximum(fc("inter_rm", j, f[j]), 0) for j in range(M)]
    y = 0
    for j in range(M):
        fhat = sum(np.tanh(np.linalg.norm(g[j] - g[m], axis=1))[:, None] * g[m] for m in range(M) if m != j)
        y = y + 0.3 * f[j] + 0.7 * fhat
    np.testing.assert_allclose(aux["expression"], y, rtol=1e-4, atol=1e-5)
    expected = y @ p["epn"]["fc"]["kernel"] + p["epn"]["fc"]["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


# C10: no NaN


@pytest.mark.parametrize("edge", fdrl.EDGES)
@pytest.mark.parametrize("dead", [True, False])
def test_c10_equal_or_dead_messages_give_finite_gradients(edge, dead):
    model, data = small(edge=edge), batch()
    variables = init(model, data)
    fc = variables["params"]["inter_rm"]["fc"]
    kernel = fc["kernel"].at[1].set(fc["kernel"][0]).at[2:].set(0.0)
    bias = jnp.full_like(fc["bias"], -100.0) if dead else jnp.zeros_like(fc["bias"])
    variables["params"]["inter_rm"]["fc"] = {"kernel": kernel, "bias": bias}

    def objective(params):
        (logits, aux), _ = model.apply({**variables, "params": params}, data, train=True, mutable=["centers"])
        return sum(jnp.mean(term) for term in terms_of(fdrl, logits, aux, data).values())

    value, grads = jax.jit(jax.value_and_grad(objective))(variables["params"])
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_safe_norm():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(fdrl.safe_norm(x), [5.0, 0.0])
    np.testing.assert_allclose(jax.grad(lambda x: fdrl.safe_norm(x).sum())(x), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)


# The model's other promises


@pytest.mark.parametrize("modules", fdrl.MODULES)
def test_every_ablation_gives_its_losses_in_float32(modules):
    model, data = small(modules=modules, dtype=jnp.bfloat16), batch()
    variables = init(model, data)
    (logits, aux), _ = train_step(model, variables, data)
    terms = terms_of(fdrl, logits, aux, data)
    expected = {"cross_entropy"}
    expected |= {"compactness"} if modules not in ("none", "wide") else set()
    expected |= {"balance", "distribution"} if modules in ("intra", "both") else set()
    assert set(terms) == expected
    assert set(terms) <= set(fdrl.METHOD.weights)
    floats = [logits, *terms.values(), *fdrl.monitor(logits, aux, data).values()]
    floats += [v for k, v in aux.items() if k != "maps"]
    assert all(v.dtype == jnp.float32 for v in floats)
    assert all(term.shape == (8,) for term in terms.values())
    assert all(jnp.shape(v) == () for v in fdrl.monitor(logits, aux, data).values())


def test_one_latent_feature_has_no_graph_to_monitor():
    model, data = small(num_features=1), batch()
    logits, aux = evaluate(model, init(model, data), data)
    assert set(fdrl.monitor(logits, aux, data)) == {"alpha_mean", "alpha_0"}


def test_importances_that_start_by_a_bias_need_one():
    with pytest.raises(UserError, match="model.use_bias"):
        init(small(alpha="literal_bias", use_bias=False), batch())


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(
    seed=st.integers(0, 1000),
    order=st.permutations(range(8)),
    masked=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_losses_are_non_negative_and_permute_with_the_batch(seed, order, masked):
    keys = jax.random.split(jax.random.key(seed), 4)
    data = {**batch(seed=seed), "mask": jnp.array(masked)}
    logits = jax.random.normal(keys[0], (8, C))
    aux = {
        "latent": jax.random.uniform(keys[1], (8, M, D)),
        "importance": jax.random.uniform(keys[2], (8, M)),
        "latent_centers": jnp.zeros((M, D)),
        "importance_centers": jax.random.uniform(keys[3], (C, M)),
    }
    terms = terms_of(fdrl, logits, aux, data)
    order = np.array(order)
    permuted_aux = {k: v if "centers" in k else v[order] for k, v in aux.items()}
    permuted = terms_of(fdrl, logits[order], permuted_aux, jax.tree.map(lambda x: x[order], data))
    for name, term in terms.items():
        assert (np.asarray(term) >= 0).all()
        np.testing.assert_allclose(permuted[name], term[order], rtol=1e-5, atol=1e-6)
    garbage = {k: v if "centers" in k else jnp.where(_rows(data["mask"], v), v, 9.0) for k, v in aux.items()}
    with_garbage = terms_of(fdrl, logits, garbage, data)
    for name, term in terms.items():
        np.testing.assert_allclose(with_garbage[name][data["mask"]], term[data["mask"]], rtol=1e-5, atol=1e-6)


def _rows(mask, like):
    return mask.reshape(-1, *[1] * (like.ndim - 1))
