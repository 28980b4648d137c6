"""What learns from matrices, distributions and neighbors is traced over the methods, alone and with mixing."""

import functools

import jax
import pytest

from fer_jax.config.check import check_config
from fer_jax.errors import UserError
from fer_jax.training.setup import make_setup
from fer_jax.training.step import train_step

TRACED = [
    ("fdrl", "correction+mixup", {"kind": "prior"}),
    ("acnn", "correction+small_loss+cutmix", {"matrix": "learned"}),
    ("psr", "correction", {"matrix": "estimated", "start": 1.0}),
    ("psr", "ldl+mixup", {}),
    ("fdrl", "ldl_alsg+small_loss", {}),
    ("acnn", "ldl_alsg", {"form": "pyldl"}),
    ("word2vec", "correction", {"matrix": "fer2013"}),
]


@pytest.mark.parametrize(("method", "objective", "options"), TRACED)
def test_a_strategy_is_traced(method, objective, options, tiny):
    config = tiny(method)
    config.objective = objective
    if options:
        config.strategy[objective.partition("+")[0]].update(options)
    if method == "word2vec":
        config.loss.options.kind = "softmax"
    setup = make_setup(config)
    state = setup.abstract_state()
    step = functools.partial(train_step, setup.task, setup.tx, setup.schedule)
    after, _ = jax.eval_shape(step, state, setup.template)
    assert jax.tree.structure(after) == jax.tree.structure(state)


REFUSED = [
    ("baseline", {"objective": "ldl_alsg+mixup"}, "a mixture has no neighbors"),
    ("baseline", {"objective": "ldl", "data.label_noise": "pair", "data.label_noise_rate": 0.2}, "learns from votes"),
    (
        "baseline",
        {"objective": "correction", "strategy.correction.matrix": "estimated", "train.epochs": 5.0},
        "start=5.0 is not before the end",
    ),
    ("word2vec", {"objective": "correction"}, "kind='cosine' is not: give 'softmax' or 'distribution'"),
    (
        "baseline",
        {"objective": "correction", "strategy.correction.kind": "prior", "strategy.correction.matrix": "learned"},
        "kind='prior' teaches T nothing",
    ),
]


@pytest.mark.parametrize(("method", "fields", "says"), REFUSED)
def test_what_makes_no_sense_is_refused(method, fields, says, tiny):
    config = tiny(method)
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=says):
        check_config(config)
