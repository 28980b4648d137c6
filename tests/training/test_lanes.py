"""Seeds side by side, a device each: the same runs as alone, and a killed group goes on to the same lines."""

import functools
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from fer_jax.data.sources.rows import mark_valid, take_rows
from fer_jax.errors import UserError
from fer_jax.runs.checkpoint import Checkpoints
from fer_jax.sweeps import sweep
from fer_jax.training import lanes, loop
from fer_jax.training.feed import Feed, training_program
from fer_jax.training.log import read_lines
from fer_jax.training.setup import make_setup
from fer_jax.training.step import train_step

STEPS = 12
TIMING = {"training_seconds", "images_per_second", "wall_seconds", "waiting_for_data", "side_by_side"}


@pytest.fixture
def pair(tiny):
    """A function that makes a config of two seeds on two devices, with steps so small that rounding does not grow."""

    def make(seeds=2, seed=3, devices=2, **train):
        config = tiny("baseline", **{"max_steps": STEPS, "log_every_steps": 1, "devices": devices, **train})
        config.train.eval_every_epochs = 0.3  # after steps 4, 8 and 12
        config.seed, config.seeds = seed, seeds
        config.optimizer.name, config.schedule.name = "sgd", "constant"
        config.optimizer.learning_rate = 1e-4
        config.evaluation.bootstrap = 20
        return config

    return make


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder of two seeds trained side by side, filled by the first test."""
    return epath.Path(tmp_path_factory.mktemp("lanes") / "run")


def lines(folder):
    return (folder / "metrics.jsonl").read_text()


def column(folder, name, kind="train"):
    return [line[name] for line in read_lines(folder / "metrics.jsonl") if line["kind"] == kind]


def test_two_seeds_side_by_side_are_the_seeds_alone(pair, together, capsys):
    results = sweep.train(pair(), together)
    said = capsys.readouterr().out
    assert "2 seeds, 2 side by side (a device each, of 2)" in said
    assert "seeds 3, 4 side by side" in said
    assert said.count("first step after") == 1
    for place, seed in enumerate((3, 4)):
        folder = together / f"seed0{seed}"
        alone = together.parent / f"alone{seed}"
        reference = loop.train(pair(seeds=1, seed=seed, devices=1), alone)
        assert len(column(alone, "loss/total")) == STEPS
        np.testing.assert_allclose(column(folder, "loss/total"), column(alone, "loss/total"), rtol=1e-4)
        np.testing.assert_allclose(column(folder, "loss/total")[:2], column(alone, "loss/total")[:2], rtol=2e-6)
        np.testing.assert_allclose(column(folder, "grad_norm")[:2], column(alone, "grad_norm")[:2], rtol=1e-5)
        np.testing.assert_allclose(
            column(folder, "nll", "validation"), column(alone, "nll", "validation"), rtol=1e-4, atol=0
        )
        assert column(folder, "step") == column(alone, "step")
        ours = json.loads((folder / "results.json").read_text())
        assert set(ours) == set(reference) | {"side_by_side"}
        assert ours["side_by_side"] == 2
        assert ours["seed"] == seed
        assert ours["nll"] == pytest.approx(reference["nll"], rel=1e-4)
        assert results["seeds"][place]["params_sha256"] == ours["params_sha256"]
        config = json.loads((folder / "config.json").read_text())["config"]
        assert (config["seed"], config["seeds"]) == (seed, 1)
    first, second = column(together / "seed03", "loss/total"), column(together / "seed04", "loss/total")
    assert abs(np.subtract(first, second)).min() > 1e-4  # they are two runs


def test_a_killed_group_goes_on_to_the_same_lines(pair, together, tmp_path, monkeypatch, capsys):
    """Killed between two saves of one step, where the newest saves of the seeds differ; then stopped by a signal."""
    killed = epath.Path(tmp_path / "killed")
    save = Checkpoints.save

    def dies(self, step, checkpoint):
        if step == 8 and "seed04" in str(self.folder):
            raise KeyboardInterrupt
        save(self, step, checkpoint)

    config = pair(keep_checkpoints=1)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            sweep.train(config, killed)
    newest = [max(int(p.name) for p in (killed / f"seed0{s}" / "checkpoints").iterdir()) for s in (3, 4)]
    assert newest == [8, 4]

    capsys.readouterr()
    due = iter([False, False, True])  # after step 7: one is on its way, the other one waits at 8
    with monkeypatch.context() as patch:
        stop = signal.SIGTERM
        patch.setattr(loop, "_should_stop", lambda signals, _: next(due) and (signals.caught.append(stop) or True))
        with pytest.raises(loop.Interrupted, match="stopped by SIGTERM at step 7, saved"):
            sweep.train(config, killed)
    said = capsys.readouterr().out
    assert "seed 3: resumed at step 8 of 12" in said
    assert "seed 4: resumed at step 4 of 12" in said
    sweep.train(config, killed)
    said = capsys.readouterr().out
    assert "seed 3: resumed at step 8 of 12" in said
    assert "seed 4: resumed at step 7 of 12" in said
    for seed in (3, 4):
        assert lines(killed / f"seed0{seed}") == lines(together / f"seed0{seed}")
        ours, theirs = (json.loads((f / f"seed0{seed}" / "results.json").read_text()) for f in (killed, together))
        assert {k: v for k, v in ours.items() if k not in TIMING} == {
            k: v for k, v in theirs.items() if k not in TIMING
        }


def test_how_many_at_once_and_why(pair):
    def said(config):
        return lanes.seeds_at_once(config, make_setup(config, training=False))

    assert said(pair(seeds=5)) == (2, "a device each, of 2")
    assert said(pair(seeds=3, devices=4)) == (3, "a device each, of 4")
    assert said(pair(seeds=3, devices=4, seeds_together=2)) == (2, "a device each, of 4")
    assert said(pair(devices=1)) == (1, "there is one device")
    assert said(pair(seeds_together=1)) == (1, "config.train.seeds_together=1")
    streamed = pair()
    streamed.data.path = "stream"
    assert said(streamed) == (1, "the images are not in device memory")


def test_more_at_once_than_there_can_be(pair, tmp_path):
    streamed = pair(seeds_together=2)
    streamed.data.path = "stream"
    covered = pair(seeds_together=2)
    covered.data.occluded_copies = True
    for config, says in (
        (
            pair(seeds=3, seeds_together=3),
            "seeds_together=3, but there are 2 devices: each seed takes one; give 0 to 2",
        ),
        (pair(devices=1, seeds_together=2), "seeds_together=2, but there is one device"),
        (streamed, "seeds_together=2: the images are not in device memory; give 0 or 1"),
        (covered, "seeds_together=2: each seed has objects of its own in front of the faces; give 0 or 1"),
        (pair(seeds=4, devices=3), "config.train.batch_size=16 cannot be shared by 3 devices"),  # the last one's
    ):
        with pytest.raises(UserError, match=says):
            sweep.train(config, epath.Path(tmp_path / "run"))
        assert not (tmp_path / "run").exists()


def test_rows_go_to_the_devices_and_come_back(pair):
    setup = make_setup(pair(), training=False)
    configs = [pair(seeds=1, seed=seed) for seed in (3, 4)]
    setups = lanes.of_seeds(setup, configs)
    states = [lane.init() for lane in setups]
    carrier = lanes.Lanes(setups, 0)
    carried = carrier.carry(states)
    for leaf in jax.tree.leaves(carried):
        assert [shard.data.shape[0] for shard in leaf.addressable_shards] == [1, 1]
    for state, back in zip(states, carrier.states(carried), strict=True):
        for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(back), strict=True):
            np.testing.assert_array_equal(before, after)
    kernels = [state.params["trunk"]["conv1"]["kernel"] for state in states]
    assert abs(kernels[0] - kernels[1]).max() > 1e-3


def test_all_seeds_share_what_is_compiled_and_each_draws_its_own(tiny):
    """The program of a seed is that of another; its step is the step of a task that has the seed as a constant."""
    texts, steps = [], []
    for seed in (3, 4):
        config = tiny("baseline", devices=1)
        config.seed, config.model.dropout, config.augmentation.flip = seed, 0.5, True
        setup = make_setup(config)
        feed, state = Feed(setup, 0), setup.init()
        rows = np.stack([next(feed._batches)])
        texts.append(training_program(setup).lower(state, feed._seed, feed._data, rows).as_text())
        if seed == 3:  # the other one's program, of the same text, gets its seed in the same way
            batch = take_rows(feed._data, jnp.asarray(rows[0]))
            constant = jax.jit(functools.partial(train_step, setup.task, setup.tx, setup.schedule))
            _, expected = constant(state, mark_valid(batch))
        feed.close()
        feed = Feed(setup, 0)
        _, metrics, _ = feed.run(state, 1)
        feed.close()
        steps.append(float(metrics["loss/total"][0]))
    np.testing.assert_allclose(steps[0], expected["loss/total"], rtol=1e-6)
    assert texts[0] == texts[1]
    assert abs(steps[0] - steps[1]) > 1e-3
