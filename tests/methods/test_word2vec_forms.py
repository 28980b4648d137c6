"""Word2Vec FER's other forms against their equations (A1 to A6): losses, controls, types, and mistakes by name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from planted import terms_of
from word_outputs import EYE, G, R, Through, V, losses, outputs

from fer_jax.errors import UserError
from fer_jax.methods import word2vec


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
    np.testing.assert_allclose(terms_of(word2vec, logits, aux, batch, kind="softmax")["softmax"], a1, rtol=1e-5)
    np.testing.assert_allclose(terms_of(word2vec, logits, aux, batch, kind="margin")["softmax"], a2, rtol=1e-5)
    hybrid = terms_of(word2vec, logits, aux, batch, kind="hybrid")
    np.testing.assert_allclose(hybrid["softmax"], a1, rtol=1e-5)
    np.testing.assert_allclose(hybrid["cosine"], 1 - np.diag(s), rtol=1e-5)
    assert {word2vec.METHOD.weights[name] for name in hybrid} == {1.0}
    np.testing.assert_allclose(logits, 16 * s, rtol=1e-5)


def test_the_temperature_is_learned_and_kept_in_its_range():
    u = 5 * V + jax.random.normal(jax.random.key(0), V.shape)
    model = word2vec.Model(num_classes=7, class_vectors=R, backbone=Through, learn_scale=True)
    batch = outputs(u, model)[2]
    head = {"kernel": jnp.eye(V.shape[1]), "bias": jnp.zeros(V.shape[1])}

    def loss_at(t):
        logits, aux = model.apply({"params": {"head": head, "log_scale": t}}, batch, train=True)
        return jnp.mean(terms_of(word2vec, logits, aux, batch, kind="softmax")["softmax"]), aux["scale"]

    (_, s), slope = jax.value_and_grad(loss_at, has_aux=True)(jnp.log(16.0))
    assert s == pytest.approx(16.0)
    assert slope < 0  # these outputs are right: surer would be better
    assert loss_at(jnp.float32(9.0))[1] == 100.0
    assert loss_at(jnp.float32(-9.0))[1] == 1.0
    logits, aux, batch = outputs(u, model)
    with pytest.raises(UserError, match="learn_scale: .*kind='cosine' has no softmax"):
        terms_of(word2vec, logits, aux, batch, kind="cosine")


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
        terms_of(word2vec, logits, aux, batch, kind="distribution")["distribution"], expected, rtol=1e-4
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
        terms_of(word2vec, logits, aux, batch, kind="votes")


def test_class_vectors_that_move():
    """A6: the penalty is |delta|^2, and only delta has a gradient: the words themselves are no parameters."""
    model = word2vec.Model(num_classes=7, class_vectors=R, backbone=Through, learn_delta=True)
    u = jax.random.normal(jax.random.key(0), V.shape)
    _, aux, batch = outputs(u, model)
    np.testing.assert_allclose(aux["class_vectors"], V, atol=1e-6)  # delta starts at zero
    head = {"kernel": jnp.eye(V.shape[1]), "bias": jnp.zeros(V.shape[1])}

    def terms(delta):
        logits, aux = model.apply({"params": {"head": head, "delta": delta}}, batch, train=True)
        return terms_of(word2vec, logits, aux, batch)

    delta = 0.1 * jax.random.normal(jax.random.key(1), V.shape)
    np.testing.assert_allclose(terms(delta)["delta"], jnp.sum(delta**2), rtol=1e-5)
    moved = jax.grad(lambda d: jnp.mean(terms(d)["cosine"]))(jnp.zeros_like(V))
    closer = terms(-10.0 * moved)["cosine"].mean()
    assert closer < terms(jnp.zeros_like(V))["cosine"].mean()
    assert word2vec.METHOD.weights["delta"] == 1e-2


def test_controls():
    raw = np.asarray(R)

    def vectors(control, seed=0):
        fields = {"control": control, "control_seed": seed}
        return np.asarray(word2vec.Model(num_classes=7, class_vectors=R, **fields).unit_vectors(), np.float64)

    np.testing.assert_allclose(vectors("none"), V, atol=1e-6)
    centerd = vectors("center")
    np.testing.assert_allclose(centerd, word2vec.unit(raw - raw.mean(0)), atol=1e-6)
    assert abs((centerd @ centerd.T)[~np.eye(7, dtype=bool)].mean()) < G[~np.eye(7, dtype=bool)].mean()
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
    leaves += terms_of(word2vec, logits, aux, batch, kind="hybrid").values()
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
    with pytest.raises(UserError, match="give epsilon=1.0 in"):
        terms_of(word2vec, logits, aux, batch, kind="distribution", epsilon=1.0)
