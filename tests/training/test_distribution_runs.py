"""What learns from matrices, distributions and neighbors is traced over the methods, alone and with mixing."""

import functools

import jax
import pytest

from fer_jax.training.setup import make_setup
from fer_jax.training.step import train_step

TRACED = [
    ("fdrl", "correction+mixup", {"kind": "prior"}),
    ("acnn", "correction+small_loss+cutmix", {"matrix": "learned"}),
    ("psr", "correction", {"matrix": "estimated"}),
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
