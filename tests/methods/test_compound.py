"""Compound expressions as pairs of parts: the table, the probabilities of the classes, the loss and VAC's weights."""

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from planted import terms_of

from fer_jax.errors import UserError
from fer_jax.labels import COMPOUND_EMOTIONS, EMOTIONS, PARTS
from fer_jax.methods import compound
from fer_jax.methods.method import Clock, Output
from fer_jax.methods.objective import load

TABLE = np.array(compound.part_table(COMPOUND_EMOTIONS))
CLOCK = Clock(jnp.int32(0), jnp.float32(0.0))


def test_the_table_has_the_parts_of_each_class():
    row = dict(zip(COMPOUND_EMOTIONS, TABLE, strict=True))
    assert not row["neutral"].any()
    assert dict(zip(PARTS, row["sadly fearful"], strict=True)) == {
        part: float(part in ("sadness", "fear")) for part in PARTS
    }
    assert (row["appalled"] @ row["appalled"], row["appalled"][PARTS.index("disgust")]) == (1.25, 1)
    np.testing.assert_array_equal(row["hatred"] + row["appalled"], 1.5 * row["angrily disgusted"])
    assert len(np.unique(TABLE, axis=0)) == 22
    order = ("fearfully sad", "sadly fearful")
    assert len(set(compound.part_table(order))) == 1  # the table does not depend on which part is named first
    with pytest.raises(UserError, match="'contempt'"):
        compound.part_table(("neutral", "contempt"))
    with pytest.raises(UserError, match="compound expressions, but the classes are neutral, happiness, "):
        compound.model_fields(None, EMOTIONS[:7])


def outputs_of(z, share=None):
    z, table = jnp.asarray(z, jnp.float32), jnp.asarray(TABLE, jnp.float32)
    share = jnp.asarray([0.5] * 6 if share is None else share, jnp.float32)
    return Output(compound.class_logits(z, TABLE), {"part_logits": z, "table": table, "share": share})


def test_the_probabilities_are_those_of_independent_parts():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5, 6))
    p = 1 / (1 + np.exp(-z))[:, None]
    log_likelihood = (TABLE * np.log(p) + (1 - TABLE) * np.log(1 - p)).sum(-1)
    entropy = np.log(2) * (TABLE == 0.5).sum(-1)
    expected = jax.nn.log_softmax(jnp.asarray(log_likelihood + entropy, jnp.float32))
    np.testing.assert_allclose(jax.nn.log_softmax(outputs_of(z).logits), expected, rtol=1e-4, atol=1e-5)


def test_each_class_is_predicted_where_the_parts_are_its_own():
    z = np.where(TABLE == 0.5, 0.0, np.where(TABLE > 0, 5.0, -5.0))
    np.testing.assert_array_equal(outputs_of(z).logits.argmax(-1), np.arange(22))


def loss_of(z, label, share=None, **options):
    target = jax.nn.one_hot(jnp.asarray(label), 22)
    return compound.loss((outputs_of(z, share),), {"target": target}, CLOCK, **options)["cross_entropy"]


def test_the_loss_is_the_sum_of_six_sigmoid_cross_entropies():
    z = np.array([[0.3, -1.0, 2.0, 0.0, 0.5, -40.0]])
    p = 1 / (1 + np.exp(-z))
    t = TABLE[[COMPOUND_EMOTIONS.index("angrily disgusted")]]
    expected = -(t * np.log(p) + (1 - t) * np.log1p(-p)).sum(-1)
    label = [COMPOUND_EMOTIONS.index("angrily disgusted")]
    np.testing.assert_allclose(loss_of(z, label), expected, rtol=1e-5)
    share = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    weighted = -(t * np.exp(1 - share) * np.log(p) + (1 - t) * np.exp(share) * np.log1p(-p)).sum(-1)
    np.testing.assert_allclose(loss_of(z, label, share, label_weights=True), weighted, rtol=1e-5)


def test_vac_averages_the_weighted_loss_over_its_views():
    method = load("vac").apply(compound.METHOD, scale=1.0)
    maps = {"class_maps": jnp.zeros((1, 3, 3, 22))}
    views = [outputs_of(np.full((1, 6), z), np.linspace(0.1, 0.6, 6)) for z in (0.5, -2.0)]
    outputs = tuple(Output(view.logits, {**view.aux, **maps}) for view in views)
    batch = {"target": jax.nn.one_hot(jnp.array([7]), 22)}
    both = method.loss(outputs, batch, CLOCK, label_weights=True)["cross_entropy"]
    each = [compound.loss((view,), batch, CLOCK, label_weights=True)["cross_entropy"] for view in views]
    np.testing.assert_allclose(both, (each[0] + each[1]) / 2, rtol=1e-6)


def test_the_shares_follow_the_parts_of_the_training_examples():
    batch = planted.batch_of(np.arange(6), np.random.default_rng(0))
    table = compound.part_table(("neutral", "happy", "sad", "sadly angry", "appalled", "awed"))
    model = compound.Model(num_classes=6, table=table, backbone=planted.TinyTrunk)
    variables = jax.jit(lambda: model.init(jax.random.key(0), batch, train=True))()
    before = variables["batch_stats"]["share"]
    np.testing.assert_allclose(before, np.mean(table, axis=0), rtol=1e-6)
    batch |= {"mask": jnp.arange(6) < 2}  # padding does not count
    (logits, aux), after = model.apply(variables, batch, train=True, mutable=["batch_stats"])
    expected = before + compound.FOLLOW * (np.mean(table[:2], axis=0) - before)
    np.testing.assert_allclose(after["batch_stats"]["share"], expected, rtol=1e-5)
    assert terms_of(compound, logits, aux, batch)["cross_entropy"].shape == (6,)
