"""Phases: each starts anew, the switch survives being killed around, the best model goes on; momentum as in PyTorch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from fer_jax.config.check import check_config
from fer_jax.config.fields import default_config
from fer_jax.config.steps import phases
from fer_jax.errors import UserError
from fer_jax.runs.checkpoint import restore
from fer_jax.training import loop
from fer_jax.training.optimizer import make_momentum, make_optimizer
from fer_jax.training.runner import StepRunner
from fer_jax.training.setup import make_setup

PARAMS = {"trunk": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}, "head": {"kernel": jnp.full((2, 4), 0.5)}}
SGD = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1}


def config(two=((0.6, {}), (0.4, SGD)), **fields):
    settings = default_config("test", "test", "baseline")
    settings.optimizer.groups = (("head", {"lr_multiplier": 0.1}),)
    settings.optimizer.weight_decay = 0.01
    settings.schedule.name = "one_cycle"
    settings.train.phases = two
    for path, value in fields.items():
        group, name = path.split("_", 1)
        settings[group][name] = value
    return settings


def gradients(step):
    return jax.tree.map(lambda p: jax.random.normal(jax.random.key(step), p.shape), PARAMS)


def descend(tx, params, steps):
    state = tx.init(params)
    update = jax.jit(tx.update)
    for step in steps:
        updates, state = update(gradients(step), state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_a_phase_is_a_run_of_its_own():
    tx, schedule = make_optimizer(config(), PARAMS, 10, 5)
    together = descend(tx, PARAMS, range(10))
    one = config(two=())
    first, rate = make_optimizer(one, PARAMS, 6, 5)
    one.optimizer.name, one.optimizer.learning_rate = "sgd", 0.1
    second, second_rate = make_optimizer(one, PARAMS, 4, 5)
    apart = descend(second, descend(first, PARAMS, range(6)), range(6, 10))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), together, apart)
    expected = [*(rate(s) for s in range(6)), *(second_rate(s) for s in range(4))]
    np.testing.assert_allclose([jax.jit(schedule)(s) for s in range(10)], expected, rtol=1e-6)


def test_shares_decide_where_a_phase_ends():
    assert [(p.start, p.end) for p in phases(config(two=((0.5, {}), (0.25, {}), (0.25, SGD))), 100)] == [
        (0, 50),
        (50, 75),
        (75, 100),
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (((0.5, {}), (0.4, {})), "add up to 1"),
        (((1.5, {}), (-0.5, {})), "above 0"),
        ((0.5, 0.5), "give .*'optimizer.name'"),
        (((0.5, {}), (0.5, {"optimizer.nme": "sgd"})), "no field 'optimizer.nme'; did you mean 'optimizer.name'"),
        (((0.5, {}), (0.5, {"train.epochs": 1.0})), "no field 'train.epochs'"),
        (((0.5, {}), (0.5, {"optimizer.learning_rate": "fast"})), "optimizer.learning_rate='fast'"),
    ],
)
def test_mistakes(given, says):
    with pytest.raises(UserError, match=says):
        check_config(config(two=given))


def test_a_run_too_short_for_its_phases():
    with pytest.raises(UserError, match="8 steps are too few for 2"):
        make_optimizer(config(two=((0.95, {}), (0.05, {}))), PARAMS, 8, 5)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"schedule_momentum": (0.85, 0.95)}, "give \\(high, low\\)"),
        ({"schedule_momentum": (0.9,)}, "give \\(high, low\\)"),
        ({"schedule_momentum": (0.95, 0.85), "schedule_name": "cosine"}, "needs config.schedule.name='one_cycle'"),
    ],
)
def test_mistakes_in_momentum(fields, says):
    with pytest.raises(UserError, match=says):
        make_momentum(config(**fields), 10)


class Killed(BaseException):
    pass


def test_a_run_killed_around_the_switch_ends_the_same(tiny, tmp_path, monkeypatch):
    settings = tiny(max_steps=10, log_every_steps=3, eval_every_epochs=0.14, phase_restores_best=True)  # every 2 steps
    still = {"optimizer.learning_rate": 0.0, "optimizer.weight_decay": 0.0}
    settings.train.phases = ((0.5, {}), (0.3, {"optimizer.name": "sgd", "optimizer.learning_rate": 1.0}), (0.2, still))
    settings.schedule.momentum = (0.95, 0.85)
    settings.selection.metric = "nll"
    reference = loop.train(settings, epath.Path(tmp_path / "reference"))
    lines = (tmp_path / "reference" / "metrics.jsonl").read_text()
    nll = {line["step"]: line["nll"] for line in map(json.loads, lines.splitlines()) if line["kind"] == "validation"}
    assert {5, 8, 10} <= set(nll)  # the end of a phase is evaluated
    assert nll[8] > min(value for step, value in nll.items() if step <= 8), "nothing better to go back to"
    like = make_setup(settings).abstract_state()
    best_like = {"params": like.params, "collections": like.collections}
    saved = restore(epath.Path(tmp_path / "reference" / "checkpoints"), {"state": like, "best": best_like})
    assert saved is not None
    # Nothing moved the parameters after the last switch, which went back to the best.
    jax.tree.map(np.testing.assert_array_equal, saved[0]["state"].params, saved[0]["best"]["params"])

    original = StepRunner.run

    def run(feed, state, most):
        if int(state.step) == 6:  # just after the first switch; the run that goes on makes the second one
            raise Killed
        return original(feed, state, most)

    with monkeypatch.context() as patch:
        patch.setattr(StepRunner, "run", run)
        with pytest.raises(Killed):
            loop.train(settings, epath.Path(tmp_path / "killed"))
    killed = loop.train(settings, epath.Path(tmp_path / "killed"))
    assert killed["params_sha256"] == reference["params_sha256"]
    assert (tmp_path / "killed" / "metrics.jsonl").read_text() == lines
