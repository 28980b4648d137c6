"""Strategies and memory in whole runs: traced over the methods, resumed exactly, the same on any devices."""

import dataclasses
import functools
import signal

import jax
import numpy as np
import pytest
from etils import epath

from fer_jax import methods
from fer_jax.data.sources.source import load
from fer_jax.methods import baseline
from fer_jax.training import loop
from fer_jax.training.log import read_lines
from fer_jax.training.run import Run
from fer_jax.training.runner import StepRunner
from fer_jax.training.setup import make_setup
from fer_jax.training.step import train_step

BOTH = "small_loss+cutmix"
TRACED = [  # several views, mixing and selection over every kind of method
    ("baseline", "mixup"),
    ("baseline", "vac+mixup+small_loss"),
    ("compound", BOTH),
    ("fdrl", "eac+cutmix+small_loss"),
    ("acnn", "nla+cutmix+small_loss"),
    ("acnn", "arcface+mixup"),
    ("psr", "vac+mixup+small_loss"),
    ("fdrl", "scn"),
    ("psr", "scn"),
    ("word2vec", "scn"),
    ("word2vec", "nla+dropping"),
    ("rul", "relabel+small_loss"),
]


def traced(method, objective, tiny):
    """The metrics of a step of a method with strategies, as shapes."""
    config = tiny(method, epochs=20.0)  # some strategies begin after a warm-up
    config.objective = objective
    if "vac" in objective:
        config.strategy.vac.update(rotate=10.0, scale=1.0 if method in ("acnn", "psr") else 6 / 7)
    if method == "word2vec":
        config.loss.options.kind = "softmax"
    setup = make_setup(config)  # traces augmentation, mixing, model and loss
    state = setup.abstract_state()
    step = functools.partial(train_step, setup.task, setup.tx, setup.schedule)
    after, metrics = jax.eval_shape(step, state, setup.template)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    return metrics


@pytest.mark.parametrize(("method", "objective"), TRACED)
def test_strategies_are_traced_over_every_kind_of_method(method, objective, tiny):
    metrics = traced(method, objective, tiny)
    assert ("selected" in metrics) == ("small_loss" in objective or "dropping" in objective)
    assert ("monitor/relabeled" in metrics) == ("scn" in objective or "relabel" in objective)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["baseline", "fdrl", "acnn", "psr", "word2vec"])
@pytest.mark.parametrize("objective", ["eac", "vac", "scn", "dropping", "nla", "correction", "agreement"])
def test_each_pair_is_traced(method, objective, tiny):
    traced(method, objective, tiny)


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
    config.objective, config.data.path = BOTH, "stream"
    config.strategy.cutmix.probability = 1.0
    config.strategy.small_loss.epochs = 0.1
    config.strategy.small_loss.tau = 0.5
    whole = loop.train(config, epath.Path(tmp_path / "whole"))
    resumed = stopped_and_resumed(config, epath.Path(tmp_path / "stopped"), monkeypatch)
    assert resumed["params_sha256"] == whole["params_sha256"]
    assert whole["objective"] == BOTH
    lines = read_lines(epath.Path(tmp_path / "whole") / "metrics.jsonl")
    assert read_lines(epath.Path(tmp_path / "stopped") / "metrics.jsonl") == lines


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["correction", "eac", "ldl", "ldl_alsg", "nla", "rul", "vac"])
def test_a_stopped_run_on_ambiguous_labels_ends_with_the_same_bytes(experiment, tiny, tmp_path, monkeypatch):
    config = tiny(experiment, max_steps=4)
    if experiment == "rul":
        config.objective = "relabel"
        config.strategy.relabel.update(start=0.0, delta2=0.0, beta=0.5)
    whole = loop.train(config, epath.Path(tmp_path / "whole"))
    resumed = stopped_and_resumed(config, epath.Path(tmp_path / "stopped"), monkeypatch)
    assert resumed["params_sha256"] == whole["params_sha256"]


REMEMBERING = {
    "correction": {"matrix": "estimated", "anchors": 3},
    "dropping": {"share": 0.3, "by_class": False, "start": 2.0},
    "scn": {"start": 2.0, "delta2": 0.0, "beta": 0.5},  # whatever is not predicted is relabeled
}


@pytest.mark.parametrize(
    "objective", [*(pytest.param(o, marks=pytest.mark.slow) for o in ("correction", "dropping")), "scn"]
)
def test_memory_is_the_same_on_any_devices_and_after_a_resume(objective, tiny, tmp_path, monkeypatch):
    kept, original = {}, Run.save

    def save(self):
        kept[self.workdir] = jax.tree.map(np.asarray, self.state.memory)
        original(self)

    monkeypatch.setattr(Run, "save", save)
    config = tiny("baseline", max_steps=8, epochs=1000.0, eval_every_epochs=1000.0, log_every_steps=1)
    config.data.builder.train, config.data.holdout_fraction = 28, 0.4  # about a batch is left
    config.optimizer.name, config.optimizer.learning_rate, config.schedule.name = "sgd", 1e-3, "constant"
    config.objective = objective
    config.strategy[objective].update(REMEMBERING[objective])
    whole, stopped = epath.Path(tmp_path / "whole"), epath.Path(tmp_path / "stopped")
    results = loop.train(config, whole)
    memory = kept[whole]
    if objective == "dropping":
        assert memory["visits"].all()
        assert memory["dropped"].sum() == round(0.3 * len(memory["dropped"]))
    elif objective == "correction":
        np.testing.assert_allclose(memory["predictions"].sum(axis=1), 1.0, rtol=1e-5)
    else:
        assert (memory["label"] >= 0).any()
        test = load(config.data, "test", training=False)
        np.testing.assert_array_equal(np.sum(results["confusion"], axis=1), test.class_counts())
    resumed = stopped_and_resumed(config, stopped, monkeypatch, at=5)
    assert resumed["params_sha256"] == results["params_sha256"]
    jax.tree.map(np.testing.assert_array_equal, kept[stopped], memory)

    config.train.devices = 4
    setup = make_setup(config)
    steps, state = StepRunner(setup, 0), setup.init()
    for _ in range(8):
        state, _, _ = steps.run(state, 1)
    assert jax.tree.structure(state.memory) == jax.tree.structure(memory)
    for name, values in memory.items():
        tolerance = 1e-5 if values.dtype == np.float32 else 0
        np.testing.assert_allclose(state.memory[name], values, rtol=tolerance, atol=tolerance)


def test_a_fitted_method_takes_no_gradient_steps(tiny, tmp_path, monkeypatch):
    """Class means of the features as a classifier, in closed form."""
    fitted, saved = {}, {}

    def fit(model, features, targets, seed):
        means = (targets.T @ features) / np.maximum(targets.sum(0), 1)[:, None]
        fitted["classifier"] = {"kernel": means.T, "bias": -0.5 * (means**2).sum(1)}
        return {f"classifier/{name}": values for name, values in fitted["classifier"].items()}

    def save(run):
        saved.update(jax.tree.map(np.asarray, run.best))

    monkeypatch.setattr(methods, "load", lambda name: dataclasses.replace(baseline.METHOD, fit=fit))
    monkeypatch.setattr(Run, "save", save)
    config = tiny("baseline")
    config.augmentation.train = ()
    config.optimizer.weight_decay, config.schedule.name, config.schedule.peak_fraction = 0.0, "constant", 0.3
    results = loop.train(config, epath.Path(tmp_path / "run"))
    assert results["steps"] == 1
    jax.tree.map(np.testing.assert_array_equal, saved["params"]["classifier"], fitted["classifier"])
    jax.tree.map(np.testing.assert_array_equal, saved["collections"], make_setup(config).init().collections)
