"""Word2Vec FER's mechanism checks 1 to 6, each of which the mistakes of the first published sketch of it fail.

Its mistakes stand below as functions: `abs` around the cosine, rows left out, Keras' -cos taken for a similarity, the
last class never looked at, the true class's vector only.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import planted
import pytest
from flax import linen as nn

from fer_jax.errors import UserError
from fer_jax.labels import EMOTIONS
from fer_jax.methods import word2vec
from fer_jax.words.classes import class_vectors

R = class_vectors("minilm", "seed", EMOTIONS[:7]).vectors
V = jnp.asarray(word2vec.unit(np.asarray(R)), jnp.float32)
G = np.asarray(word2vec.gram_matrix(np.asarray(R)))
EYE = jnp.eye(7)


class Through(nn.Module):
    """A trunk that hands on its input: [B, 1, 1, D] -> [B, D]."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        return x.reshape(len(x), -1), {}


def outputs(u, model=None, **fields):
    """(logits, aux, batch) of a model whose head hands on u [B, D], labelled 0, 1, 2, ..."""
    model = model or word2vec.Model(num_classes=7, class_vectors=R, backbone=Through, **fields)
    batch = {
        "image": u[:, None, None],
        "target": EYE[jnp.arange(len(u)) % 7],
        "mask": jnp.ones(len(u), bool),
    }
    variables = model.init(jax.random.key(0), batch, train=False)
    params = dict(variables["params"]) | {"head": {"kernel": jnp.eye(u.shape[1]), "bias": jnp.zeros(u.shape[1])}}
    return *model.apply({"params": params}, batch, train=True), batch


def losses(u, target, **options):
    """Per-example A0 loss of outputs u."""
    return word2vec.cosine_loss(word2vec.cosines(u, V), target)


def seed_abs(u, target):
    return jnp.sum(target * jnp.abs(1.0 - (1.0 - word2vec.cosines(u, V))), axis=-1)


def seed_minus_cosine(u, target):
    return -jnp.sum(target * word2vec.cosines(u, V), axis=-1)


def orthogonal(v):
    u = jnp.asarray(np.random.default_rng(0).normal(size=v.shape), jnp.float32)
    return u - jnp.sum(u * v, axis=-1, keepdims=True) * v


def check_value(loss):
    """Check 1."""
    for u, expected in ((V, 0.0), (-V, 2.0), (orthogonal(V), 1.0)):
        for length in (1.0, 10.0):
            np.testing.assert_allclose(loss(length * u, EYE), expected, atol=2e-6)


def test_1_the_value_of_the_loss():
    check_value(losses)


@pytest.mark.parametrize("mistake", [seed_abs, seed_minus_cosine])
def test_1_fails_with_the_sketch(mistake):
    with pytest.raises(AssertionError):
        check_value(mistake)


def batch_mean(u, target):
    return jnp.mean(losses(u, target))


def seed_batch(u, target):
    """Row 0 apart, then range(1, B - 2): the last two rows are left out, and the sum is not divided by its terms."""
    rows = losses(u, target)
    return rows[0] + jnp.sum(rows[1 : len(u) - 2])


def seed_numpy(u, target):
    """`.numpy()` cuts the graph: the value is right and no gradient comes back."""
    return jax.lax.stop_gradient(batch_mean(u, target))


def check_batch(mean_loss, size):
    """Check 2."""
    u = jax.random.normal(jax.random.key(size), (size, V.shape[1]))
    target = EYE[jnp.arange(size)]
    single = jnp.stack([losses(u[i : i + 1], target[i : i + 1])[0] for i in range(size)])
    value, gradient = jax.value_and_grad(mean_loss)(u, target)
    np.testing.assert_allclose(value, jnp.mean(single), rtol=1e-6)
    assert (jnp.linalg.norm(gradient, axis=-1) > 1e-5).all()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_2_a_batch_is_the_mean_of_its_rows(size):
    check_batch(batch_mean, size)


@pytest.mark.parametrize("mistake", [seed_batch, seed_numpy])
@pytest.mark.parametrize("size", [2, 3, 7])
def test_2_fails_with_the_sketch(size, mistake):
    with pytest.raises(AssertionError):
        check_batch(mistake, size)


@pytest.mark.parametrize("kind", word2vec.KINDS)
def test_2_holds_for_every_loss_of_the_method(kind):
    u = jax.random.normal(jax.random.key(3), (7, V.shape[1]))

    def terms(rows):
        logits, aux, batch = outputs(rows)
        votes = {"vote_target": jnp.full((len(rows), 7), 1 / 7)}
        return word2vec.loss(logits, aux, batch | votes, kind=kind)

    gradient = jax.grad(lambda u: sum(jnp.sum(term) for term in terms(u).values()))(u)
    assert (jnp.linalg.norm(gradient, axis=-1) > 1e-6).all()
    for name, rows in terms(u).items():
        assert rows.shape == (7,)
        assert name in word2vec.LOSS_WEIGHTS
        np.testing.assert_allclose(terms(u[:3])[name], rows[:3], rtol=2e-5)


def nearest_word(u):
    return np.asarray(outputs(u)[0]).argmax(-1)


def seed_all_but_the_last(u):
    return np.asarray(word2vec.cosines(u, V))[:, :-1].argmax(-1)


def seed_keras(u):
    return np.asarray(-word2vec.cosines(u, V)).argmax(-1)


def seed_last_value(u):
    """The comparison stands behind the loop: only the last class that was looked at counts."""
    return np.full(len(u), 5)


def check_decision(decide):
    """Check 3."""
    np.testing.assert_array_equal(decide(3.0 * V), np.arange(7))


def test_3_every_vector_is_its_own_class():
    check_decision(nearest_word)


@pytest.mark.parametrize("mistake", [seed_all_but_the_last, seed_keras, seed_last_value])
def test_3_fails_with_the_sketch(mistake):
    with pytest.raises(AssertionError):
        check_decision(mistake)


@pytest.mark.parametrize("control", word2vec.CONTROLS)
@pytest.mark.parametrize("decode", word2vec.DECODINGS)
def test_3_in_every_form(decode, control):
    fields = {"control": control, "decode": decode}
    model = word2vec.Model(num_classes=7, class_vectors=R, backbone=Through, **fields)
    u = jnp.asarray(model.unit_vectors())
    if (control, decode) == ("center", "pinv"):  # centred vectors span six dimensions
        with pytest.raises(UserError, match="config.model.decode='pinv': the Gram matrix .* condition number"):
            outputs(u, model)
        return
    logits, aux, _ = outputs(u, model)
    np.testing.assert_array_equal(logits.argmax(-1), np.arange(7))
    assert logits.dtype == aux["similarity"].dtype == jnp.float32


def test_3_permuting_the_table_permutes_the_decisions():
    order = np.array([3, 0, 6, 1, 5, 2, 4])
    turned = word2vec.Model(num_classes=7, class_vectors=tuple(R[k] for k in order), backbone=Through)
    u = jax.random.normal(jax.random.key(0), (50, V.shape[1]))
    np.testing.assert_array_equal(order[outputs(u, turned)[0].argmax(-1)], nearest_word(u))


# Check 4, the order of the classes, is tests/words/test_classes.py.


def test_5_the_bias_of_the_nearest_word():
    """Minimising the expected loss under posteriors p ends at û = normalise(V^T p): argmax G p, not argmax p."""
    p = jnp.asarray(np.random.default_rng(0).dirichlet(np.full(7, 2.0), size=200), jnp.float32)
    u = jax.random.normal(jax.random.key(1), (len(p), V.shape[1]))
    tx = optax.sgd(1.0, momentum=0.9)

    def step(_, state):
        u, memory = state
        updates, memory = tx.update(jax.grad(lambda u: jnp.sum(losses(u, p)))(u), memory)
        return optax.apply_updates(u, updates), memory

    u, _ = jax.lax.fori_loop(0, 3000, step, (u, tx.init(u)))
    best = word2vec.normalise(p @ V)
    assert jnp.sum(word2vec.normalise(u) * best, axis=-1).min() > 0.999
    mixed, truth = (np.asarray(p) @ G).argmax(-1), np.asarray(p).argmax(-1)
    assert (mixed != truth).mean() > 0.05  # the two differ, or the test would say nothing
    clear = np.sort(np.asarray(p), axis=-1)
    clear = clear[:, -1] - clear[:, -2] > 1e-3
    np.testing.assert_array_equal(outputs(u)[0].argmax(-1)[clear], mixed[clear])
    np.testing.assert_array_equal(outputs(u, decode="pinv")[0].argmax(-1)[clear], truth[clear])


def test_6_learns_64_images_by_heart():
    """A loss that stays near 1 - mean(G) is a collapse to the mean vector."""
    classes = planted.CLASSES
    model = word2vec.Model(num_classes=classes, class_vectors=R[:classes], backbone=planted.TinyTrunk)
    batch = planted.batch_of(np.arange(64) % classes, np.random.default_rng(0))
    params = jax.jit(lambda: model.init(jax.random.key(0), batch, train=False))()["params"]
    tx = optax.adam(3e-3)
    memory = tx.init(params)

    def objective(params):
        logits, aux = model.apply({"params": params}, batch, train=True)
        hits = jnp.argmax(logits, -1) == jnp.argmax(batch["target"], -1)
        return jnp.mean(word2vec.loss(logits, aux, batch)["cosine"]), (hits, word2vec.monitor(logits, aux, batch))

    @jax.jit
    def step(params, memory):
        (value, (hits, seen)), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to an integer power
            updates, memory = tx.update(gradient, memory)
        return optax.apply_updates(params, updates), memory, value, hits, seen

    for _ in range(299):
        params, memory, value, hits, seen = step(params, memory)
        if value < 0.02 and hits.all():
            break
    assert value < 0.02
    assert hits.all()
    assert 1 - G[:classes, :classes].mean() > 0.1  # far above what the collapse would reach
    assert seen["cosine_true"] > 0.98
    assert seen["cosine_spread"] > 0.1


def test_a_soft_target_gives_the_expected_loss():
    u = jax.random.normal(jax.random.key(0), (5, V.shape[1]))
    p = jax.nn.softmax(jax.random.normal(jax.random.key(1), (5, 7)))
    each = jnp.stack([losses(u, jnp.broadcast_to(EYE[k], (5, 7))) for k in range(7)], axis=-1)
    np.testing.assert_allclose(losses(u, p), jnp.sum(p * each, axis=-1), rtol=1e-5)


def test_softmax_margin_and_hybrid():
    """A1 to A3 against their equations, written out."""
    u = jax.random.normal(jax.random.key(0), (7, V.shape[1]))
    logits, aux, batch = outputs(u)
    s = np.asarray(aux["similarity"], np.float64)

    def log_softmax(x):
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    a1 = -np.diag(log_softmax(16 * s))
    a2 = -np.diag(log_softmax(16 * (s - 0.2 * np.eye(7))))
    np.testing.assert_allclose(word2vec.loss(logits, aux, batch, kind="softmax")["softmax"], a1, rtol=1e-5)
    np.testing.assert_allclose(word2vec.loss(logits, aux, batch, kind="margin")["softmax"], a2, rtol=1e-5)
    hybrid = word2vec.loss(logits, aux, batch, kind="hybrid")
    np.testing.assert_allclose(hybrid["softmax"], a1, rtol=1e-5)
    np.testing.assert_allclose(hybrid["cosine"], 1 - np.diag(s), rtol=1e-5)
    assert {word2vec.LOSS_WEIGHTS[name] for name in hybrid} == {1.0}
    np.testing.assert_allclose(logits, 16 * s, rtol=1e-5)


def test_the_temperature_is_learned_and_kept_in_its_range():
    u = 5 * V + jax.random.normal(jax.random.key(0), V.shape)
    model = word2vec.Model(num_classes=7, class_vectors=R, backbone=Through, learn_scale=True)
    batch = outputs(u, model)[2]
    head = {"kernel": jnp.eye(V.shape[1]), "bias": jnp.zeros(V.shape[1])}

    def loss_at(t):
        logits, aux = model.apply({"params": {"head": head, "log_scale": t}}, batch, train=True)
        return jnp.mean(word2vec.loss(logits, aux, batch, kind="softmax")["softmax"]), aux["scale"]

    (_, s), slope = jax.value_and_grad(loss_at, has_aux=True)(jnp.log(16.0))
    assert s == pytest.approx(16.0)
    assert slope < 0  # these outputs are right: surer would be better
    assert loss_at(jnp.float32(9.0))[1] == 100.0
    assert loss_at(jnp.float32(-9.0))[1] == 1.0
    logits, aux, batch = outputs(u, model)
    with pytest.raises(UserError, match="learn_scale: .*kind='cosine' has no softmax"):
        word2vec.loss(logits, aux, batch, kind="cosine")


def test_word_targets_spread_what_they_spread_by_similarity():
    """A4: with tau 0.1 a similarity that is 0.1 larger weighs e times as much."""
    gram = np.eye(4, dtype=np.float32)
    gram[0, 1:] = gram[1:, 0] = (0.5, 0.4, 0.3)
    d = np.asarray(word2vec.word_targets(jnp.asarray(gram), 0.1, 0.1))
    np.testing.assert_allclose(np.diag(d), 0.9, rtol=1e-6)
    np.testing.assert_allclose(d.sum(-1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(d[0, 1] / d[0, 2], np.e, rtol=1e-4)
    np.testing.assert_allclose(d[0, 2] / d[0, 3], np.e, rtol=1e-4)


def test_the_distribution_loss_is_zero_where_the_prediction_is_the_target():
    d = word2vec.word_targets(jnp.asarray(G, jnp.float32), 0.1, 0.1)
    np.testing.assert_allclose(word2vec.kl_divergence(d, jnp.log(d)), 0.0, atol=1e-6)
    assert (word2vec.kl_divergence(d, jnp.zeros((7, 7))) > 0.5).all()
    u = jax.random.normal(jax.random.key(0), (7, V.shape[1]))
    logits, aux, batch = outputs(u)
    log_p = np.log(jax.nn.softmax(logits))
    expected = (d * (np.log(d) - log_p)).sum(-1)
    np.testing.assert_allclose(
        word2vec.loss(logits, aux, batch, kind="distribution")["distribution"], expected, rtol=1e-4
    )


def test_votes_aim_between_the_words():
    """A5: half the annotators say 1 and half 2; the best output lies between the two words."""
    votes = jnp.zeros((1, 7)).at[0, 1].set(0.5).at[0, 2].set(0.5)
    between = V[1] + V[2]
    assert word2vec.vote_loss(between[None], V, votes)[0] == pytest.approx(0.0, abs=1e-6)
    assert word2vec.vote_loss(V[1:2], V, votes)[0] > 0.1
    no_votes = jnp.zeros((1, 7))
    value, slope = jax.value_and_grad(lambda u: word2vec.vote_loss(u, V, no_votes)[0])(V[:1])
    assert value == 1.0
    np.testing.assert_array_equal(slope, 0.0)
    logits, aux, batch = outputs(V)
    with pytest.raises(UserError, match="kind='votes': this data set has no votes"):
        word2vec.loss(logits, aux, batch, kind="votes")


def test_class_vectors_that_move():
    """A6: the penalty is |delta|^2, and only delta has a gradient: the words themselves are no parameters."""
    model = word2vec.Model(num_classes=7, class_vectors=R, backbone=Through, learn_delta=True)
    u = jax.random.normal(jax.random.key(0), V.shape)
    _, aux, batch = outputs(u, model)
    np.testing.assert_allclose(aux["class_vectors"], V, atol=1e-6)  # delta starts at zero
    head = {"kernel": jnp.eye(V.shape[1]), "bias": jnp.zeros(V.shape[1])}

    def terms(delta):
        logits, aux = model.apply({"params": {"head": head, "delta": delta}}, batch, train=True)
        return word2vec.loss(logits, aux, batch)

    delta = 0.1 * jax.random.normal(jax.random.key(1), V.shape)
    np.testing.assert_allclose(terms(delta)["delta"], jnp.sum(delta**2), rtol=1e-5)
    moved = jax.grad(lambda d: jnp.mean(terms(d)["cosine"]))(jnp.zeros_like(V))
    closer = terms(-10.0 * moved)["cosine"].mean()
    assert closer < terms(jnp.zeros_like(V))["cosine"].mean()
    assert word2vec.LOSS_WEIGHTS["delta"] == 1e-2


def test_controls():
    raw = np.asarray(R)

    def vectors(control, seed=0):
        fields = {"control": control, "control_seed": seed}
        return np.asarray(word2vec.Model(num_classes=7, class_vectors=R, **fields).unit_vectors(), np.float64)

    np.testing.assert_allclose(vectors("none"), V, atol=1e-6)
    centred = vectors("center")
    np.testing.assert_allclose(centred, word2vec.unit(raw - raw.mean(0)), atol=1e-6)
    assert abs((centred @ centred.T)[~np.eye(7, dtype=bool)].mean()) < G[~np.eye(7, dtype=bool)].mean()
    for control in ("whiten", "random"):
        np.testing.assert_allclose(vectors(control) @ vectors(control).T, np.eye(7), atol=1e-5)
    words, whitened = np.asarray(V, np.float64), vectors("whiten")
    assert (np.sum(words * whitened, -1) > 0.8).all()  # still near the words
    rotated = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0] @ whitened
    assert np.square(words - whitened).sum() < np.square(words - rotated).sum()
    assert np.abs(words @ vectors("random").T).max() < 0.3  # knows nothing of the words
    np.testing.assert_array_equal(vectors("random"), vectors("random"))
    assert not np.allclose(vectors("random"), vectors("random", seed=1))


def test_a_dead_output_has_a_finite_gradient():
    """A plain norm has a gradient of NaN at 0."""
    gradient = jax.grad(lambda u: jnp.sum(losses(u, EYE[:2])))(jnp.zeros((2, V.shape[1])))
    np.testing.assert_array_equal(gradient, 0.0)


def test_cosines_are_float32_whatever_the_trunk_computes_in():
    model = word2vec.Model(num_classes=6, class_vectors=R[:6], backbone=planted.TinyTrunk, dtype=jnp.bfloat16)
    batch = planted.batch_of(np.arange(6), np.random.default_rng(0))
    variables = model.init(jax.random.key(0), batch, train=False)
    logits, aux = model.apply(variables, batch, train=True)
    leaves = [logits, aux["output"], aux["similarity"], *jax.tree.leaves(variables)]
    leaves += word2vec.loss(logits, aux, batch, kind="hybrid").values()
    leaves += word2vec.monitor(logits, aux, batch).values()
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)


def test_the_semantic_error_is_that_of_the_words_whatever_the_control():
    labels = np.array([0, 1, 2, 3, 3])
    logits = np.eye(7)[[0, 1, 5, 4, 3]]  # right, right, two errors, right
    expected = np.mean([1 - G[2, 5], 1 - G[3, 4]])
    for control in word2vec.CONTROLS:
        model = word2vec.Model(num_classes=7, class_vectors=R, control=control)
        assert word2vec.score(model, logits, labels)["semantic_error"] == pytest.approx(expected)
    assert word2vec.score(model, np.eye(7)[labels], labels) == {"semantic_error": None}


def test_mistakes_are_named():
    apply = functools.partial(outputs, V)
    with pytest.raises(UserError, match="config.model.control='centre': did you mean 'center'"):
        apply(control="centre")
    with pytest.raises(UserError, match="config.model.decode='pin': did you mean 'pinv'"):
        apply(decode="pin")
    with pytest.raises(UserError, match="config.model.scale=0.5: give 1 to 100"):
        apply(scale=0.5)
    with pytest.raises(UserError, match="config.model.control='random': give control_seed=-1 of at least 0"):
        apply(control="random", control_seed=-1)
    with pytest.raises(UserError, match="needs 7 class vectors and has 0"):
        apply(word2vec.Model(num_classes=7, backbone=Through))
    alike = tuple(tuple(row) for row in np.asarray(R) * 0.01 + np.asarray(R[0]))
    with pytest.raises(UserError, match="config.model.control='whiten': the Gram matrix .* condition number"):
        apply(word2vec.Model(num_classes=7, class_vectors=alike, backbone=Through, control="whiten"))
    logits, aux, batch = apply()
    with pytest.raises(UserError, match="config.loss.options.kind='cosin': did you mean 'cosine'"):
        word2vec.loss(logits, aux, batch, kind="cosin")
    with pytest.raises(UserError, match="give epsilon=1.0 in"):
        word2vec.loss(logits, aux, batch, kind="distribution", epsilon=1.0)
