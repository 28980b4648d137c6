"""Word2Vec FER's mechanism checks 1 to 6, each of which the mistakes of the first published sketch of it fail.

Its mistakes stand below as functions: `abs` around the cosine, rows left out, Keras' -cos taken for a similarity, the
last class never looked at, the true class's vector only. The method's other forms are in test_word2vec_forms.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import planted
import pytest
from planted import terms_of
from word_outputs import EYE, G, R, Through, V, losses, outputs

from fer_jax.errors import UserError
from fer_jax.methods import word2vec


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


@pytest.mark.parametrize("size", [1, 7])
def test_2_a_batch_is_the_mean_of_its_rows(size):
    check_batch(batch_mean, size)


@pytest.mark.parametrize("mistake", [seed_batch, seed_numpy])
@pytest.mark.parametrize("size", [2, 7])
def test_2_fails_with_the_sketch(size, mistake):
    with pytest.raises(AssertionError):
        check_batch(mistake, size)


@pytest.mark.parametrize("kind", word2vec.KINDS)
def test_2_holds_for_every_loss_of_the_method(kind):
    u = jax.random.normal(jax.random.key(3), (7, V.shape[1]))

    def terms(rows):
        logits, aux, batch = outputs(rows)
        votes = {"vote_target": jnp.full((len(rows), 7), 1 / 7)}
        return terms_of(word2vec, logits, aux, batch | votes, kind=kind)

    gradient = jax.grad(lambda u: sum(jnp.sum(term) for term in terms(u).values()))(u)
    assert (jnp.linalg.norm(gradient, axis=-1) > 1e-6).all()
    for name, rows in terms(u).items():
        assert rows.shape == (7,)
        assert name in word2vec.METHOD.weights
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
    if (control, decode) == ("center", "pinv"):  # centerd vectors span six dimensions
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
    """Minimising the expected loss under posteriors p ends at û = normalize(V^T p): argmax G p, not argmax p."""
    p = jnp.asarray(np.random.default_rng(0).dirichlet(np.full(7, 2.0), size=200), jnp.float32)
    u = jax.random.normal(jax.random.key(1), (len(p), V.shape[1]))
    tx = optax.sgd(1.0, momentum=0.9)

    def step(_, state):
        u, memory = state
        updates, memory = tx.update(jax.grad(lambda u: jnp.sum(losses(u, p)))(u), memory)
        return optax.apply_updates(u, updates), memory

    u, _ = jax.lax.fori_loop(0, 3000, step, (u, tx.init(u)))
    best = word2vec.normalize(p @ V)
    assert jnp.sum(word2vec.normalize(u) * best, axis=-1).min() > 0.999
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
        return jnp.mean(terms_of(word2vec, logits, aux, batch)["cosine"]), (hits, word2vec.monitor(logits, aux, batch))

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
