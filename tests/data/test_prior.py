"""PDLS: the published prior comes out of the real votes, is looked up by name, and its targets obey their algebra."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.data.targets.prior import FERPLUS, prior_matrix
from fer_jax.data.targets.votes import vote_distribution
from fer_jax.errors import UserError
from fer_jax.labels import EMOTIONS
from fer_jax.methods.losses import cross_entropy
from fer_jax.training.step import smooth

RAFDB = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
AFFECTNET = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
INDEX = [EMOTIONS.index(name) for name in RAFDB]
AUTHORS = FERPLUS[np.ix_(INDEX, INDEX)]  # as in their code, not normalized again
RNG = np.random.default_rng(0)


def one_hot(label, classes=8):
    return jnp.asarray(np.eye(classes)[label], jnp.float32)


# Check 7: the table


def vote_prior(votes):
    """The matrix by its definition: the mean distribution of the examples whose emotion has half of all votes."""
    decided = (2 * votes.max(axis=1) >= votes.sum(axis=1)) & (votes.max(axis=1) > 0)
    return np.stack([vote_distribution(votes)[decided & (votes.argmax(axis=1) == e)].mean(axis=0) for e in range(8)])


def test_the_real_votes_give_the_published_table(real_data):
    spec = importlib.util.spec_from_file_location("packed_fer2013", real_data / "fer2013.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with np.load(script.PACKED) as packed:
        votes, usage = packed["ferplus_votes"], packed["usage"]
    assert np.abs(vote_prior(votes[usage == 0]) - FERPLUS).max() < 2e-4  # it is printed with four digits


@pytest.mark.parametrize("classes", [RAFDB, AFFECTNET, ("surprise", "Happy", "Anger")])
def test_pairs_are_kept_by_name(classes):
    names = {"happy": "happiness", "sad": "sadness"}
    prior = prior_matrix(classes)
    for row, given in enumerate(classes):
        for column, seen in enumerate(classes):
            g, s, same = (EMOTIONS.index(names.get(n.lower(), n.lower())) for n in (given, seen, classes[0]))
            assert prior[row, column] / prior[row, 0] == pytest.approx(FERPLUS[g, s] / FERPLUS[g, same])


def test_rows_of_fewer_classes_sum_to_one():
    np.testing.assert_allclose(AUTHORS.sum(1), [0.9910, 0.9663, 0.9963, 0.9964, 0.9792, 0.9899, 0.9976], atol=2e-4)
    np.testing.assert_allclose(prior_matrix(RAFDB).sum(1), 1, atol=1e-12)


def test_mistakes():
    with pytest.raises(UserError, match="not 'happily surprised': give 'uniform'"):
        prior_matrix(("happily surprised",))


# Checks 5 and 6: the targets


def test_special_priors_are_the_other_losses():
    target = one_hot(np.arange(8))
    np.testing.assert_allclose(smooth(target, 0.2, np.full((8, 8), 1 / 8)), smooth(target, 0.2, None), atol=1e-6)
    np.testing.assert_allclose(smooth(target, 0.2, np.eye(8)), target, atol=1e-6)
    np.testing.assert_allclose(smooth(target, 0.0, FERPLUS), target, atol=1e-6)


def test_the_mass_of_a_label_and_its_order():
    target = np.asarray(smooth(one_hot(np.arange(7), 7), 0.2, AUTHORS))
    np.testing.assert_allclose(np.diag(target)[[3, 2]], [0.9835, 0.9318], atol=1e-4)  # happiness, fear
    fear, disgust = target[RAFDB.index("fear")], target[RAFDB.index("disgust")]
    np.testing.assert_allclose(fear[[6, 1]], [0.0339, 0.0026], atol=1e-4)  # surprise, disgust
    assert RAFDB[np.argsort(disgust)[-2]] == "anger"
    assert target.sum(1).min() > 0.993


def test_the_loss_is_smallest_where_the_prediction_is_the_target():
    target = smooth(one_hot(np.arange(8)), 0.2, prior_matrix(EMOTIONS))
    entropy = -jnp.sum(target * jnp.log(target), axis=-1)
    np.testing.assert_allclose(cross_entropy(jnp.log(target), target), entropy, rtol=1e-5)
    for _ in range(20):
        logits = jnp.log(target) + jnp.asarray(RNG.normal(size=(8, 8)), jnp.float32)
        assert (cross_entropy(logits, target) > entropy).all()


def test_the_gradient_follows_the_mass_of_the_target():
    target = smooth(one_hot(np.arange(7), 7), 0.2, AUTHORS)  # rows that do not sum to one
    logits = jnp.asarray(RNG.normal(size=(7, 7)), jnp.float32)
    gradient = jax.grad(lambda z: cross_entropy(z, target).sum())(logits)
    expected = jax.nn.softmax(logits) * target.sum(-1, keepdims=True) - target
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
