"""A run that is killed and started again ends like one that never was: the same bits, lines and scores."""

import pathlib
import random
import re
import signal
import time

ARGUMENTS = (
    "--config=experiments/fdrl.py:smoke",
    "--config.model.depth=10",
    "--config.model.width=8",
    "--config.data.image_size=16",
    "--config.train.batch_size=16",
    "--config.train.max_steps=80",
    "--config.evaluation.report=False",
    "--config.train.log_every_steps=5",  # not a divisor of the evaluation's: windows stay open across saves
    "--config.train.eval_every_epochs=0.5",
)


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


def test_stopped_anywhere_ends_the_same(run_py, results_of, tmp_path):
    """Killed, which leaves on the disk what the saves left there, then asked to stop, which saves."""
    reference, workdir = tmp_path / "reference", tmp_path / "stopped"
    done = run_py(*ARGUMENTS, f"--workdir={reference}")
    assert done.returncode == 0, done.stdout
    checkpoints = workdir / "checkpoints"

    process = run_py(*ARGUMENTS, f"--workdir={workdir}", wait=False)
    assert wait_for(lambda: len(list(checkpoints.glob("*"))) >= 2, process)
    time.sleep(random.uniform(0, 0.1))
    process.kill()
    process.communicate()

    made = len(lines(workdir))
    process = run_py(*ARGUMENTS, f"--workdir={workdir}", wait=False)
    assert wait_for(lambda: len(lines(workdir)) > made, process)
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    output, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, output
    assert time.monotonic() - asked < 10
    assert "Traceback" not in output
    (step,) = re.findall(r"stopped by SIGTERM at step (\d+), saved", output)

    done = run_py(*ARGUMENTS, f"--workdir={workdir}")
    assert done.returncode == 0, done.stdout
    assert f"resumed at step {step} of" in done.stdout
    assert_same_run(workdir, reference, results_of)


def test_a_signal_before_the_first_step_ends_the_run_at_once(run_py, tmp_path):
    # A loss weight that no other test has: its program is in no cache and takes seconds to compile.
    arguments = (
        *ARGUMENTS,
        f"--config.loss.weights.balance={random.uniform(0.9, 1.1)}",
        f"--workdir={tmp_path / 'run'}",
    )
    process = run_py(*arguments, wait=False)
    for line in process.stdout:
        if "parameters;" in line:
            break
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    process.communicate()
    assert time.monotonic() - asked < 5
    assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
