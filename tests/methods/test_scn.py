"""SCN and its relabeling against numbers by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import methods
from fer_jax.methods.baseline import Model
from fer_jax.methods.losses import cross_entropy
from fer_jax.methods.method import Clock, Output
from fer_jax.methods.objective import load
from fer_jax.methods.strategies import relabel, scn

ALPHA = jnp.array([0.9, 0.2, 0.6, 0.5])
LOW = jnp.array([False, True, False, True])
VALID = jnp.ones(4, bool)
LOGITS = jnp.log(jnp.array([[0.1, 0.8, 0.1], [0.3, 0.45, 0.25], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]))


def applied(name, **options) -> Any:
    """The baseline with a strategy."""
    return load(name).apply(methods.load("baseline"), **options)


def at(epoch):
    return Clock(jnp.int32(0), jnp.float32(epoch))


def batch_of(label):
    label = jnp.array(label, jnp.int32)
    return {"index": jnp.array([5, 3, 0, 2]), "mask": VALID, "label": label, "target": jax.nn.one_hot(label, 3)}


def test_the_rank_is_enough_when_the_groups_are_far_apart():
    assert scn.rank_regularization(ALPHA, LOW, VALID, 0.4) == 0  # 0.75 - 0.35
    np.testing.assert_allclose(scn.rank_regularization(ALPHA, LOW, VALID, 0.5), 0.1, rtol=1e-5)
    of_alpha = jax.grad(scn.rank_regularization)(ALPHA, LOW, VALID, 0.5)
    np.testing.assert_allclose(of_alpha, [-0.5, 0.5, -0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize(("size", "beta", "low"), [(10, 0.7, 3), (10, 0.5, 5), (3, 0.7, 1)])
def test_the_groups_are_disjoint_and_hold_every_valid_example(size, beta, low):
    rng = np.random.default_rng(0)
    alpha = jnp.asarray(rng.uniform(size=size + 1), jnp.float32).at[2].set(0.0)
    batch = {"index": jnp.arange(size + 1)[::-1], "mask": jnp.arange(size + 1) != 2}
    found = np.asarray(relabel.uncertain(1 - alpha[:, None], batch, beta))
    assert found.sum() == low
    assert not found[2]  # padding
    assert max(alpha[found]) < min(np.delete(alpha, [2, *np.flatnonzero(found)]))


def test_importance_weighs_the_logits_and_costs_one_row_of_parameters():
    model = scn.with_importance(Model)(num_classes=3, depth=6, width=4)
    batch = {"image": jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)}

    @jax.jit
    def outputs():
        variables = model.init(jax.random.key(0), batch, train=False)
        features, _ = model.apply(variables, batch, train=False, method="embed")
        head = variables["params"]["example_importance"]
        alpha = jax.nn.sigmoid(features @ head["kernel"] + head["bias"])
        return model.apply(variables, batch, train=False), alpha, model.apply(variables, features, method="classify")

    (logits, aux), alpha, plain = outputs()
    np.testing.assert_allclose(logits, alpha * plain, rtol=1e-5)
    np.testing.assert_allclose(scn.importance(aux), alpha[:, 0], rtol=1e-5)


@pytest.mark.parametrize(("gamma", "own", "rank"), [(0.0, 1.0, 0.1), (0.25, 0.75, 0.025)])
def test_the_loss_is_that_of_the_weighted_logits_and_the_rank(gamma, own, rank):
    method = applied("scn", beta=0.5, delta1=0.5, gamma=gamma)
    batch = batch_of([1, 0, 0, 1])
    output = Output(ALPHA[:, None] * LOGITS, {"uncertainty": 1 - ALPHA[:, None]})
    terms = method.loss((output,), batch, at(0.0))
    expected = own * cross_entropy(ALPHA[:, None] * LOGITS, batch["target"])
    np.testing.assert_allclose(terms["cross_entropy"], expected, rtol=1e-5)
    np.testing.assert_allclose(terms["rank"], [rank] * 4, rtol=1e-4)


def test_the_branches_of_psr_are_weighted_like_its_logits():
    branches = jnp.stack([LOGITS, LOGITS + 1], axis=-1)
    aux = {"branch_logits": branches, "other": LOGITS, "uncertainty": 1 - ALPHA[:, None]}
    found = scn.weighted(Output(LOGITS, aux)).aux
    np.testing.assert_allclose(found["branch_logits"][1], 0.2 * branches[1], rtol=1e-6)
    assert found["other"] is LOGITS


# Predicted: 1, 1, 1, 2. Of the labels 0, 0, 1, 0 the network denies rows 0 (0.7) and 3 (0.7), not row 1 (0.15).
RELABELED = {
    "too early": ({"scope": "batch"}, 9.9, {}),
    "the whole batch": ({"scope": "batch"}, 10.0, {5: 1, 2: 2}),
    "the low group": ({"scope": "low", "beta": 0.5}, 10.0, {2: 2}),  # rows 1 and 3
    "a smaller margin": ({"scope": "batch", "delta2": 0.1}, 10.0, {5: 1, 3: 1, 2: 2}),
}


@pytest.mark.parametrize("case", RELABELED)
def test_denied_labels_are_replaced_where_and_when_they_should_be(case):
    options, epoch, expected = RELABELED[case]
    method = applied("scn", **options)
    memory = jax.tree.map(jnp.asarray, method.memory({"label": np.zeros(7)}))
    batch, output = batch_of([0, 0, 1, 0]), Output(LOGITS, {"uncertainty": 1 - ALPHA[:, None]})
    after = method.remember(memory, (output,), batch, at(epoch))
    assert {i: int(v) for i, v in enumerate(after["label"]) if v != relabel.KEPT} == expected
    trained = method.targets(after, batch, at(epoch))
    labels = [expected.get(i, y) for i, y in zip([5, 3, 0, 2], [0, 0, 1, 0], strict=True)]
    np.testing.assert_array_equal(jnp.argmax(trained["target"], -1), labels)
    np.testing.assert_array_equal(trained["relabeled"], [i in expected for i in [5, 3, 0, 2]])


@pytest.mark.parametrize(("permanent", "label"), [(True, 1), (False, relabel.KEPT)])
def test_a_replaced_label_stays_or_is_judged_anew(permanent, label):
    method = applied("scn", scope="batch", permanent=permanent)
    memory = {"label": jnp.full(7, relabel.KEPT, jnp.int32).at[3].set(1)}
    batch, output = batch_of([0, 0, 1, 0]), Output(LOGITS, {"uncertainty": 1 - ALPHA[:, None]})
    assert method.remember(memory, (output,), batch, at(10.0))["label"][3] == label  # 0.45 of class 1, 0.3 of class 0
