"""Growing images: where the sizes change, what is refused, and that a run which was killed goes on the same."""

import itertools

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from fer_jax.config.check import check_config
from fer_jax.config.steps import Stage, size_at, stages
from fer_jax.data.sources.pipeline import index_batches
from fer_jax.errors import UserError
from fer_jax.training import loop, step
from fer_jax.training.log import read_lines
from fer_jax.training.runner import StepRunner
from fer_jax.training.setup import make_setup

STEPS = {"max_steps": 6, "log_every_steps": 1, "eval_every_epochs": 1000.0}  # three at each size


def resolutions(tiny, given, **train):
    config = tiny(**train)
    config.data.image_size = 48
    config.data.resolutions = given
    return config


def test_stages_share_the_run_and_end_at_the_full_size(tiny):
    of_run = stages(resolutions(tiny, ((0.25, 24), (0.5, 32))), 100)
    assert of_run == (Stage(25, 24), Stage(75, 32), Stage(100, 48))
    assert [size_at(of_run, step) for step in (0, 24, 25, 74, 75, 99, 100)] == [24, 24, 32, 32, 48, 48, 48]
    assert stages(resolutions(tiny, ()), 7) == (Stage(7, 48),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (((1.0, 32),), "add up to less than 1"),
        (((-0.1, 32),), "above 0"),
        (((0.5, 64),), "8 to config.data.image_size=48"),
        (((0.5, 32.5),), "whole numbers of pixels"),
        ((0.5, 32), "share of the run, pixels"),
    ],
)
def test_what_is_no_resolution_is_refused(given, message, tiny):
    with pytest.raises(UserError, match=message):
        check_config(resolutions(tiny, given))


def test_too_few_steps_are_refused(tiny):
    with pytest.raises(UserError, match="2 steps are too few for 3"):
        stages(resolutions(tiny, ((0.1, 24), (0.1, 32))), 2)


def test_a_model_whose_parameters_depend_on_the_size_is_refused(tiny):
    config = tiny("acnn")
    config.data.resolutions = ((0.5, 32),)
    with pytest.raises(UserError, match="config.data.resolutions: acnn cannot train at 32 pixels"):
        make_setup(config)


def test_each_step_sees_images_of_its_stage(tiny):
    config = tiny("fer2013_fast", max_steps=4)
    config.data.resolutions = ((0.5, 32),)
    setup = make_setup(config)
    feed, state = StepRunner(setup, 0), setup.init()
    flops = {
        size: program.lower(state, feed._seed, feed._data, jax.ShapeDtypeStruct((1, 16), "int32")).cost_analysis()[
            "flops"
        ]
        for size, program in feed._programs.items()
    }
    assert 1.5 < flops[48] / flops[32] < 2.6  # (48 / 32) ** 2 is 2.25, of all that is not the optimiser
    for programs in (1, 1, 2, 2):  # a size is compiled when its first step comes
        state, _, _ = feed.run(state, 1)
        assert feed.programs() == programs
    feed.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return epath.Path(tmp_path_factory.mktemp("resolutions") / "run")


@pytest.fixture
def whole(tiny, finished):
    """The folder of a run that was not stopped, a step to a dispatch; trained once for this file."""
    if not finished.exists():
        loop.train(resolutions(tiny, ((0.5, 32),), **STEPS), finished)
    return finished


def test_a_run_that_was_stopped_in_either_stage_goes_on_the_same(tiny, whole, tmp_path, monkeypatch, results_of):
    """Stopped twice: the second time the run is one that went on, over the end of a stage."""
    config = resolutions(tiny, ((0.5, 32),), **STEPS)
    stopped = epath.Path(tmp_path / "stopped")
    for stop, begun in ((2, 0), (5, 2)):
        with monkeypatch.context() as patch:
            steps = iter(range(begun + 1, 7))
            patch.setattr(loop, "_should_stop", lambda signals, ask, steps=steps, stop=stop: _at(signals, steps, stop))
            with pytest.raises(loop.Interrupted, match=f"at step {stop}"):
                loop.train(config, stopped)
    assert loop.train(config, stopped)["params_sha256"] == results_of(whole)["params_sha256"]
    assert read_lines(stopped / "metrics.jsonl") == read_lines(whole / "metrics.jsonl")


def test_no_dispatch_reaches_over_the_end_of_a_stage(tiny, whole, tmp_path, monkeypatch):
    config = resolutions(tiny, ((0.5, 32),), **STEPS)
    dispatches, original = [], StepRunner.run

    def remember(self, state, most):
        state, metrics, made = original(self, state, most)
        dispatches.append(made)
        return state, metrics, made

    monkeypatch.setattr(StepRunner, "run", remember)
    config.train.steps_per_dispatch = 2
    loop.train(config, epath.Path(tmp_path / "several"))
    assert dispatches == [2, 1, 2, 1]
    single, several = (
        [line["loss/total"] for line in read_lines(folder / "metrics.jsonl") if line["kind"] == "train"]
        for folder in (whole, epath.Path(tmp_path / "several"))
    )
    assert several == pytest.approx(single, rel=1e-4)


def test_flips_alternate_from_epoch_to_epoch_across_batches(tiny):
    """Over two and a half epochs whose length is no multiple of the batch."""
    seen: dict[int, list[bool]] = {}
    setup = make_setup(tiny("fer2013_fast"))
    examples, task = len(setup.train), setup.task
    assert examples % 16
    batches = index_batches(examples, 16, setup.config.seed)
    for number in range(int(2.5 * examples / 16)):
        rows = jnp.asarray(batches[number])
        flips = step._flips(task, {"index": rows}, jnp.int32(number))
        assert flips is not None
        for row, flip in zip(rows.tolist(), flips.tolist(), strict=True):
            seen.setdefault(row, []).append(flip)
    assert {len(flips) for flips in seen.values()} <= {2, 3}
    assert all(one != other for flips in seen.values() for one, other in itertools.pairwise(flips))
    assert 0.3 < sum(flips[0] for flips in seen.values()) / examples < 0.7


def _at(signals, steps, stop) -> bool:
    """Whether this is the step to stop after, as a signal would have it."""
    if next(steps) != stop:
        return False
    signals.caught.append(15)
    return True
