"""Dropping of examples by what is remembered of them, and by votes, against numbers by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import methods
from fer_jax.errors import UserError
from fer_jax.methods.losses import cross_entropy
from fer_jax.methods.method import Clock, Output
from fer_jax.methods.objective import load
from fer_jax.methods.strategies import agreement, dropping
from fer_jax.training.setup import make_setup

LABEL = np.array([0, 0, 0, 0, 1, 1], np.int32)
LOGITS = jnp.array([[3.0, 0.0], [0.0, 2.0], [1.0, 0.0], [5.0, 0.0], [0.0, 1.0], [4.0, 0.0]])  # rows 1 and 5 are wrong


def applied(name, **options) -> Any:
    """The baseline with a strategy."""
    return load(name).apply(methods.load("baseline"), **options)


def at(epoch):
    return Clock(jnp.int32(0), jnp.float32(epoch))


def batch_of(**fields):
    label = jnp.asarray(LABEL)
    return {
        "index": jnp.arange(6), "mask": jnp.ones(6, bool), "label": label, "target": jax.nn.one_hot(label, 2)
    } | fields  # fmt: skip


def after(rule, epochs, logits=LOGITS, **options):
    """The method, and its memory after these epochs of one step each."""
    method = applied("dropping", **{"rule": rule, "start": 2.0} | options)
    memory = jax.tree.map(jnp.asarray, method.memory({"label": LABEL}))
    for epoch in epochs:
        memory = method.remember(memory, (Output(logits, {}),), batch_of(), at(epoch))
    return method, memory


@pytest.mark.parametrize(
    ("rule", "share", "by_class", "dropped"),
    [
        ("trim", 0.25, True, [1]),  # a quarter of two examples rounds to none
        ("trim", 0.5, True, [1, 2, 5]),
        ("trim", 0.33, False, [1, 5]),
        ("aum", 0.5, True, [1, 2, 5]),
    ],
)
def test_the_most_suspicious_share_is_dropped_after_the_warm_up(rule, share, by_class, dropped):
    options = {"share": share, "by_class": by_class}
    _, early = after(rule, [0.0, 1.0, 1.5], **options)
    assert not early["dropped"].any()
    method, memory = after(rule, [0.0, 1.0, 2.0], **options)
    assert np.flatnonzero(memory["dropped"]).tolist() == dropped
    batch = method.targets(memory, batch_of(), at(2.5))
    kept = method.select({}, (), batch, at(2.5))
    np.testing.assert_array_equal(np.flatnonzero(kept == 0), dropped)
    rates = [np.isin(np.flatnonzero(k == LABEL), dropped).mean() for k in (0, 1)]
    np.testing.assert_allclose(batch["drop_rates"], [rates] * 6, rtol=1e-6)


def test_the_scores_are_the_averages_of_their_rules():
    loss = cross_entropy(LOGITS, batch_of()["target"])
    doubled = cross_entropy(2 * LOGITS, batch_of()["target"])
    method, memory = after("trim", [0.0], share=0.5)
    memory = method.remember(memory, (Output(2 * LOGITS, {}),), batch_of(), at(1.0))
    np.testing.assert_allclose(memory["score"], 0.7 * loss + 0.3 * doubled, rtol=1e-5, atol=1e-7)
    method, memory = after("aum", [0.0], share=0.5)
    memory = method.remember(memory, (Output(2 * LOGITS, {}),), batch_of(), at(1.0))
    np.testing.assert_allclose(-memory["score"], 1.5 * np.array([3, -2, 1, 5, 1, -4]), rtol=1e-6)


def test_an_example_returns_when_others_are_more_suspicious_and_one_never_seen_stays():
    method, memory = after("trim", [0.0, 1.0, 2.0], share=0.25, decay=0.0)
    assert np.flatnonzero(memory["dropped"]).tolist() == [1]
    fitted = LOGITS.at[1].set(jnp.array([9.0, 0.0]))
    for epoch in (2.5, 3.0):
        memory = method.remember(memory, (Output(fitted, {}),), batch_of(), at(epoch))
    assert np.flatnonzero(memory["dropped"]).tolist() == [2]
    unseen = jnp.array([1.0, -jnp.inf, 3.0, 2.0])
    np.testing.assert_array_equal(dropping.highest(unseen, jnp.zeros(4, jnp.int32), 1.0), [True, False, True, True])


def test_the_control_drops_as_many_of_each_class():
    label = np.repeat(np.arange(3), [100, 40, 10]).astype(np.int32)
    draw = np.random.default_rng(0).uniform(size=150)
    method = applied("dropping", rule="random", share=0.1)
    score = jnp.asarray(method.memory({"label": label, "draw": draw})["score"])
    dropped = dropping.highest(score, jnp.asarray(label), 0.1)
    np.testing.assert_allclose(dropping.shares_of(dropped, jnp.asarray(label), 3), [0.1, 0.1, 0.1], rtol=1e-6)


def test_the_control_drops_by_the_seed_of_the_run(tiny):
    config, found = tiny("dropping", epochs=20.0), []
    config.strategy.dropping.rule = "random"
    for config.seed in (0, 0, 1):
        found.append(make_setup(config).memory["score"])
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).all()


def test_precision_and_recall_of_dropping_are_logged_where_the_truth_is_known():
    clean = LABEL.copy()
    clean[[1, 2, 5]] = 1 - clean[[1, 2, 5]]
    method = applied("dropping", share=0.25, start=1.0)
    memory = jax.tree.map(jnp.asarray, method.memory({"label": LABEL, "clean_label": clean}))
    batch = batch_of(clean_label=jnp.asarray(clean))
    for epoch in (0.0, 1.0):
        memory = method.remember(memory, (Output(LOGITS, {}),), batch, at(epoch))
    values = method.monitor(LOGITS, {}, method.targets(memory, batch, at(1.5)))
    assert (values["dropped_precision"], values["dropped_class_0"]) == (1.0, 0.25)
    assert values["dropped_recall"] == pytest.approx(1 / 3)


def test_a_share_that_rounds_to_no_example_is_refused():
    with pytest.raises(UserError, match="share=0.01.*rounds to none"):
        after("trim", [], share=0.01)


VOTES = jnp.array([[10, 0, 0, 0, 0, 0, 0, 0, 0, 0], [5, 5, 0, 0, 0, 0, 0, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0, 0, 6, 0]])


def test_votes_that_disagree_count_less_or_not_at_all():
    shares = agreement.top_share(VOTES.astype(jnp.float32))
    np.testing.assert_allclose(shares, [1.0, 0.5, 0.4], rtol=1e-6)
    weights = agreement.entropy_weight(VOTES[:, :8].astype(jnp.float32))
    np.testing.assert_allclose(weights, [1.0, 1 - np.log(2) / np.log(8), 1.0], rtol=1e-6)
    assert agreement.entropy_weight(jnp.zeros((1, 8)))[0] == 0


def test_votes_that_are_needed_and_absent_are_refused_and_padding_never_counts():
    select = applied("agreement", threshold=0.45, votes="votes_label").select
    batch = {"mask": jnp.array([True, False, True]), "votes_label": VOTES}
    np.testing.assert_array_equal(select({}, (), batch, at(0.0)), [1, 0, 0])
    of_ten = jnp.array(
        [[6, 0, 1, 1, 1, 0, 0, 1], [0, 6, 1, 0, 1, 0, 0, 2], [1, 0, 6, 1, 0, 1, 1, 0]]
    )  # in float32 their share is just below 0.6
    six = applied("agreement", threshold=0.6).select
    assert six({}, (), {"mask": jnp.ones(3, bool), "vote_target": of_ten / 10}, at(0.0)).all()
    with pytest.raises(UserError, match="votes_label.*no such votes"):
        select({}, (), {"mask": jnp.ones(3, bool)}, at(0.0))
