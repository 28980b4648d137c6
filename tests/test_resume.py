"""A run that is killed and started again ends like one that never was: the same bits, lines and scores."""

import pathlib
import random
import signal
import time

import pytest

SMALL = (
    "--config=experiments/fdrl.py:smoke",
    "--config.model.depth=10",
    "--config.model.width=8",
    "--config.train.batch_size=16",
    "--config.train.max_steps=24",
    "--config.train.log_every_steps=5",  # not a divisor of the evaluation's: windows stay open across saves
    "--config.train.eval_every_epochs=0.5",
)
PLAIN = (*SMALL, "--config.evaluation.report=False")  # one run of this file that is killed draws its report, no more


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    return True


def lines(workdir):
    path = pathlib.Path(workdir) / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def assert_same_run(workdir, reference, results_of):
    ours, theirs = results_of(workdir), results_of(reference)
    assert ours["params_sha256"] == theirs["params_sha256"]
    assert lines(workdir) == lines(reference)
    timing = {"training_seconds", "images_per_second", "wall_seconds", "waiting_for_data"}
    assert {k: v for k, v in ours.items() if k not in timing} == {k: v for k, v in theirs.items() if k not in timing}


@pytest.fixture(scope="module")
def references():
    return {}


@pytest.mark.parametrize(
    ("path", "moments"), [("device", ("after a line", "in a save", "anywhere")), ("stream", ("after a line",))]
)
def test_killed_anywhere_ends_the_same(path, moments, run_py, results_of, tmp_path, references):
    """What is on the disk at any moment is up to the saves, whatever the path: of the second, one kill is enough."""
    arguments = (*(SMALL if path == "device" else PLAIN), f"--config.data.path={path}")
    reference = tmp_path / "reference"
    done = run_py(*arguments, f"--workdir={reference}")
    assert done.returncode == 0, done.stdout
    references[path] = results_of(reference)

    workdir = tmp_path / "killed"
    checkpoints = workdir / "checkpoints"
    chance = random.Random(path)
    kills = 0
    for moment in (*moments, "none"):
        process = run_py(*arguments, f"--workdir={workdir}", wait=False)
        if moment == "after a line":
            wait_for(lambda: len(lines(workdir)) >= 3, process)
        elif moment == "in a save":
            before = {p.name for p in checkpoints.iterdir()}
            wait_for(lambda before=before: {p.name for p in checkpoints.iterdir()} - before, process)
        elif moment == "anywhere":
            count = len(lines(workdir))
            wait_for(lambda count=count: len(lines(workdir)) > count, process)
            time.sleep(chance.uniform(0, 0.3))
        if moment != "none":
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
    assert kills >= min(2, len(moments)), "the run ended before it could be killed: the test shows nothing"
    assert process.returncode == 0, output
    assert_same_run(workdir, reference, results_of)


def test_both_paths_give_the_same_batches_and_losses(references):
    if not {"device", "stream"} <= set(references):
        pytest.skip("compares the runs of the test before, which did not all run")
    device, stream = references["device"], references["stream"]
    assert device["accuracy"] == stream["accuracy"]
    assert device["nll"] == pytest.approx(stream["nll"], rel=1e-4)


def test_a_signal_before_the_first_step_ends_the_run_at_once(run_py, tmp_path):
    # A loss weight that no other test has: its program is in no cache and takes seconds to compile.
    arguments = (*PLAIN, f"--config.loss.weights.balance={random.uniform(0.9, 1.1)}", f"--workdir={tmp_path / 'run'}")
    process = run_py(*arguments, wait=False)
    for line in process.stdout:
        if "parameters;" in line:
            break
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    process.communicate()
    assert time.monotonic() - asked < 5
    assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)


def test_a_signal_saves_and_leaves_within_seconds(run_py, results_of, tmp_path):
    # No evaluation saves before a signal does.
    arguments = (*PLAIN, "--config.train.eval_every_epochs=100", "--config.train.max_steps=60")
    reference, workdir = tmp_path / "reference", tmp_path / "stopped"
    assert run_py(*arguments, f"--workdir={reference}").returncode == 0

    for signum in (signal.SIGTERM, signal.SIGINT):  # the second one ends a run that goes on after the first
        made = len(lines(workdir))
        process = run_py(*arguments, f"--workdir={workdir}", wait=False)
        assert wait_for(lambda made=made: len(lines(workdir)) > made, process)
        process.send_signal(signum)
        asked = time.monotonic()
        output, _ = process.communicate()
        assert process.returncode == 128 + signum, output
        assert time.monotonic() - asked < 10
        assert "saved" in output
        assert "Traceback" not in output
    assert "resumed at step" in output

    done = run_py(*arguments, f"--workdir={workdir}")
    assert done.returncode == 0, done.stdout
    assert "resumed at step" in done.stdout
    assert_same_run(workdir, reference, results_of)
