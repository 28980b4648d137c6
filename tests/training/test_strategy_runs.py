"""Strategies and memory in whole runs: traced over the methods, resumed exactly, the same on any devices."""

import dataclasses
import functools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from fer_jax import methods
from fer_jax.config.check import check_config
from fer_jax.methods import baseline
from fer_jax.methods.rows import write
from fer_jax.training import loop
from fer_jax.training.log import read_lines
from fer_jax.training.run import Run
from fer_jax.training.runner import StepRunner
from fer_jax.training.setup import make_setup, make_task
from fer_jax.training.step import train_step

EVERY = ("mixup", "small_loss+cutmix")  # each strategy once, and two together
PAIRED = ("eac+cutmix+small_loss",)  # those of several views, with mixing


@pytest.mark.parametrize("method", ["baseline", "fdrl", "acnn", "psr"])
def test_every_strategy_is_traced_over_every_kind_of_method(method, tiny):
    config = tiny(method)
    config.objective = EVERY[0]
    setup = make_setup(config)  # traces augmentation, mixing, model and loss
    for objective in (EVERY[1], *PAIRED):
        config.objective = objective
        check_config(config)
        task = make_task(config, setup.train, setup.model_fields, accelerated=False)
        state = setup.abstract_state()
        step = functools.partial(train_step, task, setup.tx, setup.schedule)
        after, metrics = jax.eval_shape(step, state, setup.template)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        assert "selected" in metrics


def stopped_and_resumed(config, workdir, monkeypatch, at=2):
    with monkeypatch.context() as patch:
        steps = iter(range(1, 100))
        stop = lambda signals, _: next(steps) == at and not signals.caught.append(signal.SIGTERM)  # noqa: E731
        patch.setattr(loop, "_should_stop", stop)
        with pytest.raises(loop.Interrupted, match=f"at step {at}"):
            loop.train(config, workdir)
    return loop.train(config, workdir)


def test_two_strategies_on_streamed_data_resume_exactly(tiny, tmp_path, monkeypatch):
    config = tiny("baseline", max_steps=4, log_every_steps=1)
    config.objective, config.data.path = EVERY[1], "stream"
    config.strategy.cutmix.probability = 1.0
    config.strategy.small_loss.epochs = 0.1
    config.strategy.small_loss.tau = 0.5
    whole = loop.train(config, epath.Path(tmp_path / "whole"))
    resumed = stopped_and_resumed(config, epath.Path(tmp_path / "stopped"), monkeypatch)
    assert resumed["params_sha256"] == whole["params_sha256"]
    assert whole["objective"] == EVERY[1]
    lines = read_lines(epath.Path(tmp_path / "whole") / "metrics.jsonl")
    assert read_lines(epath.Path(tmp_path / "stopped") / "metrics.jsonl") == lines


def averaged_losses(fields):
    return {"loss": np.zeros(len(fields["label"]), np.float32), "seen": np.zeros(len(fields["label"]), np.int32)}


def remember_losses(memory, outputs, batch, clock):
    """The moving average (0.7) of each example's loss, which the rule of trimming by EMA-loss keeps."""
    index = batch["index"]
    log_p = jax.nn.log_softmax(outputs[0].logits)
    now = -jnp.sum(batch["target"] * log_p, axis=-1)
    loss = jnp.where(memory["seen"][index] > 0, 0.7 * memory["loss"][index] + 0.3 * now, now)
    return {
        "loss": write(memory["loss"], index, loss, batch["mask"]),
        "seen": write(memory["seen"], index, memory["seen"][index] + 1, batch["mask"]),
    }


@pytest.fixture
def remembering(monkeypatch):
    """The baseline, with a memory of losses; hands out a function that reads the memory of a run."""
    method = dataclasses.replace(baseline.METHOD, memory=averaged_losses, remember=remember_losses)
    monkeypatch.setattr(methods, "load", lambda name: method)
    kept = {}
    original = Run.save

    def save(self):
        kept[self.workdir] = jax.tree.map(np.asarray, self.state.memory)
        original(self)

    monkeypatch.setattr(Run, "save", save)
    return kept


def test_memory_is_the_same_on_any_devices_and_after_a_resume(tiny, tmp_path, monkeypatch, remembering):
    config = tiny("baseline", max_steps=8, ema_decay=0.9, log_every_steps=1)
    config.optimizer.name, config.optimizer.learning_rate, config.schedule.name = "sgd", 1e-3, "constant"
    whole, stopped = epath.Path(tmp_path / "whole"), epath.Path(tmp_path / "stopped")
    expected = loop.train(config, whole)["params_sha256"]
    memory = remembering[whole]
    assert memory["seen"].sum() == 8 * 16
    assert stopped_and_resumed(config, stopped, monkeypatch)["params_sha256"] == expected
    for name, values in remembering[stopped].items():
        np.testing.assert_array_equal(values, memory[name])

    config.train.devices = 4
    setup = make_setup(config)
    steps, state = StepRunner(setup, 0), setup.init()
    for _ in range(8):
        state, _, _ = steps.run(state, 1)
    np.testing.assert_array_equal(state.memory["seen"], memory["seen"])
    np.testing.assert_allclose(state.memory["loss"], memory["loss"], rtol=1e-5, atol=1e-5)


def test_a_fitted_method_takes_no_gradient_steps(tiny, tmp_path, monkeypatch):
    """Class means of the features as a classifier, in closed form."""
    fitted, saved = {}, {}

    def fit(features, targets, seed):
        means = (targets.T @ features) / np.maximum(targets.sum(0), 1)[:, None]
        fitted["classifier"] = {"kernel": means.T, "bias": -0.5 * (means**2).sum(1)}
        return {f"classifier/{name}": values for name, values in fitted["classifier"].items()}

    def save(run):
        saved.update(jax.tree.map(np.asarray, run.best))

    monkeypatch.setattr(methods, "load", lambda name: dataclasses.replace(baseline.METHOD, fit=fit))
    monkeypatch.setattr(Run, "save", save)
    results = loop.train(tiny("baseline"), epath.Path(tmp_path / "run"))
    assert results["steps"] == 1
    jax.tree.map(np.testing.assert_array_equal, saved["params"]["classifier"], fitted["classifier"])
    jax.tree.map(np.testing.assert_array_equal, saved["collections"], make_setup(tiny("baseline")).init().collections)
