"""One device, four devices and two processes give the same training."""

import json
import socket

import jax
import numpy as np
import pytest
from etils import epath

from fer_jax.engine.mesh import check_batch, make_mesh
from fer_jax.errors import UserError
from fer_jax.training import loop
from fer_jax.training.log import read_lines
from fer_jax.training.setup import make_setup


def losses(workdir, name="loss/total"):
    return [line[name] for line in read_lines(epath.Path(workdir) / "metrics.jsonl") if line["kind"] == "train"]


def test_one_and_four_devices_agree_over_twenty_steps(tiny, tmp_path):
    """Statistics of one device's share alone would show at once; rounding needs more steps to grow.

    A ReLU that rounding tips over changes a gradient by a thousandth, and a large step makes that visible in the
    next ones: the steps here are small, so that what is left is what the devices do.
    """
    runs = {}
    for devices in (1, 4):
        config = tiny("fdrl", max_steps=20, log_every_steps=1, eval_every_epochs=100.0, devices=devices)
        config.optimizer.name = "sgd"
        config.optimizer.learning_rate = 1e-4
        config.schedule.name = "constant"
        workdir = epath.Path(tmp_path / str(devices))
        results = loop.train(config, workdir)
        runs[devices] = (losses(workdir), losses(workdir, "grad_norm"), results)
    np.testing.assert_allclose(runs[4][0], runs[1][0], rtol=1e-4)
    np.testing.assert_allclose(runs[4][0][:3], runs[1][0][:3], rtol=2e-6)
    np.testing.assert_allclose(runs[4][1][:3], runs[1][1][:3], rtol=1e-5)
    assert len(runs[1][0]) == 20
    assert runs[4][2]["nll"] == pytest.approx(runs[1][2]["nll"], rel=1e-4)


# Of pictures on the disk, tests/training/test_hosts.py shows in a moment that each process reads its own.
@pytest.mark.parametrize("path", ["auto", pytest.param("disk", marks=pytest.mark.slow)])
def test_two_processes_with_two_devices_are_one_with_four(path, run_py, tmp_path, results_of, tiny):
    alone = epath.Path(tmp_path / "alone")
    config = tiny("baseline", max_steps=4, log_every_steps=1, eval_every_epochs=0.5, devices=4, batch_size=32)
    config.optimizer.name, config.schedule.name, config.model.depth = "sgd", "constant", 10
    loop.train(config, alone)
    arguments = (
        "--config=experiments/baseline.py:smoke",
        "--config.model.depth=10",
        "--config.model.width=8",
        "--config.data.image_size=16",
        "--config.train.max_steps=4",
        "--config.evaluation.report=False",
        "--config.train.log_every_steps=1",
        "--config.train.eval_every_epochs=0.5",
        "--config.optimizer.name=sgd",
        "--config.schedule.name=constant",
    )
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    both = [
        run_py(
            *arguments,
            f"--config.data.path={path}",
            f"--workdir={tmp_path / 'together'}",
            f"--coordinator=localhost:{port}",
            "--num_processes=2",
            f"--process_id={number}",
            wait=False,
            devices=2,
        )
        for number in (0, 1)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [p.returncode for p in both] == [0, 0], "\n".join(outputs)
    assert "4 devices" in outputs[0]
    assert "accuracy" in outputs[0]
    assert "accuracy" not in outputs[1]  # only the first process prints and writes
    np.testing.assert_allclose(losses(tmp_path / "together"), losses(alone), rtol=1e-4)
    ours, theirs = results_of(tmp_path / "together"), results_of(alone)
    assert ours["confusion"] == theirs["confusion"]
    assert ours["selection"]["best_step"] == theirs["selection"]["best_step"]
    lines = (tmp_path / "together" / "metrics.jsonl").read_text().splitlines()
    assert len({json.loads(line)["step"] for line in lines if '"train"' in line}) == 4


def test_both_paths_train_alike_and_no_data_moves_inside_a_step_but_the_batch(tiny):
    config = tiny()
    losses = {"auto": [], "stream": []}
    for path, seen in losses.items():
        config.data.path = path
        setup = make_setup(config)
        feed, state = loop.StepRunner(setup, 0), setup.init()
        state, metrics, _ = feed.run(state, 1)
        seen.append(metrics["loss/total"])
        with jax.transfer_guard_host_to_device("disallow"):  # what is put on purpose, the batch, is allowed
            with pytest.raises(Exception, match="[Dd]isallowed"):
                jax.jit(lambda x: x)(np.ones(3))  # the guard does guard
            state, metrics, _ = feed.run(state, 1)
            seen.append(metrics["loss/total"])
    np.testing.assert_allclose(np.concatenate(losses["stream"]), np.concatenate(losses["auto"]), rtol=1e-4)


def test_many_steps_per_dispatch_are_the_same_steps(tiny):
    """The scan that accelerators use, forced here on a CPU, ends where single steps end."""
    import functools

    import jax.numpy as jnp

    from fer_jax.data.sources.pipeline import index_batches
    from fer_jax.engine.mesh import put_replicated, sharded
    from fer_jax.training.runner import resident_steps
    from fer_jax.training.step import train_step

    setup = make_setup(tiny("baseline", max_steps=4, devices=1))
    step = functools.partial(train_step, setup.task, setup.tx, setup.schedule)
    data = put_replicated(setup.mesh, dict(setup.train.arrays))
    order = index_batches(len(setup.train), 16, 0)
    indices = jnp.stack([jnp.asarray(order[s]) for s in range(4)])
    ends = {}
    for scan, parts in ((False, 4), (True, 1)):  # step by step, and all of them in one dispatch
        run = jax.jit(functools.partial(resident_steps, step, sharded(setup.mesh), scan))
        state, losses = setup.init(), []
        for part in jnp.split(indices, parts):
            state, metrics = run(state, data, part)
            losses.append(metrics["loss/total"])
        ends[scan] = (jnp.concatenate(losses), state.step)
    np.testing.assert_allclose(ends[True][0], ends[False][0], rtol=1e-4)
    assert int(ends[True][1]) == 4


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(UserError, match="give 28 or 32"):
        check_batch(make_mesh(devices=4), 30, 1)


def test_more_devices_than_there_are():
    with pytest.raises(UserError, match="there are 4"):
        make_mesh(devices=5)
