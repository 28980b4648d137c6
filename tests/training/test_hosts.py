"""Several processes: whoever is missing, differs, fails or is killed ends all of them with one line, soon."""

import concurrent.futures
import json
import math
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from fer_jax.engine import hosts
from fer_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = """
import sys, time
from fer_jax.errors import UserError
from fer_jax.engine import hosts

number, port, what = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with hosts.join(f"localhost:{port}", 2, number):
    print("met", flush=True)
    if what == "fail" and number == 1:
        raise UserError("a broken picture")
    time.sleep(300)
"""
READS = """
import json, sys
import jax.numpy as jnp
from experiments.baseline import get_config
from fer_jax.evaluation.evaluate import Evaluator
from fer_jax.engine import hosts
from fer_jax.training.runner import StepRunner
from fer_jax.training.setup import make_setup

number, port, data_dir = int(sys.argv[1]), sys.argv[2], sys.argv[3]


class Counting:
    def __init__(self, records):
        self.records, self.asked = records, []

    def __getitems__(self, rows):
        self.asked.extend(rows)
        return self.records.__getitems__(rows)


with hosts.join(f"localhost:{port}", 2, number):
    config = get_config("smoke")
    config.data.data_dir, config.data.path = data_dir, "disk"
    config.model.depth, config.model.width, config.train.batch_size = 10, 8, 16
    setup = make_setup(config)
    reader = setup.train.arrays["image"].read  # the held-out part is of the same split
    assert setup.validation.arrays["image"].read is reader
    reader._records = counting = Counting(reader._records)
    feed = StepRunner(setup, 0)
    feed._batches._ahead = 0  # one batch and no more
    feed.next_batch()
    train = sorted(counting.asked)
    counting.asked.clear()
    evaluator = Evaluator(setup.task, setup.mesh, 32)
    evaluator._step = lambda variables, batch: {"logits": jnp.zeros((len(batch["label"]), 7))}
    evaluator({"params": {}}, setup.validation)
    print("READ", json.dumps([train, sorted(counting.asked)]), flush=True)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start(script, *arguments):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, **pipes)


def error_lines(output):
    return [line for line in output.splitlines() if line.startswith("error: ")]


def met(process):
    while line := process.stdout.readline():
        if line == "met\n":
            return True
    return False


@pytest.mark.parametrize("gone", [0, 1])
def test_a_killed_process_ends_the_other_at_once_with_one_line(gone):
    port = free_port()
    both = [start(SCRIPT, number, port, "sleep") for number in (0, 1)]
    assert all([met(process) for process in both])
    both[gone].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    output, _ = both[1 - gone].communicate(timeout=60)
    assert time.monotonic() - killed < 30
    status = both[1 - gone].returncode
    assert status == 2 if gone else status != 0  # JAX may end whoever loses process 0 at the same moment
    (line,) = error_lines(output)
    assert f"process {gone} of 2 is lost" in line
    assert "start the same command on every host" in line
    both[gone].communicate()


def test_a_failure_on_one_host_is_told_to_the_other():
    port = free_port()
    both = [start(SCRIPT, number, port, "fail") for number in (0, 1)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [2, 2], outputs
    assert error_lines(outputs[0]) == ["error: process 1 of 2 stopped: a broken picture"]
    assert error_lines(outputs[1]) == ["error: a broken picture"]


def test_each_host_reads_only_its_own_records(data_dir, tiny):
    from fer_jax.training.setup import make_setup

    whole = make_setup(tiny())  # in one process: prepares the data
    port = free_port()
    both = [start(READS, number, port, data_dir) for number in (0, 1)]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    said = [next(line for line in output.splitlines() if line.startswith("READ")) for output in outputs]
    (train, held), (train_too, held_too) = (json.loads(line[5:]) for line in said)
    assert len(train) == len(train_too) == 8
    assert not set(train) & set(train_too)
    expected = whole.train.rows[_first_batch(whole)]
    assert sorted(train + train_too) == sorted(expected.tolist())
    # The last batch of an evaluation is padded with the first example.
    assert set(held) | set(held_too) == set(whole.validation.rows.tolist())
    assert len(set(held) & set(held_too)) <= 1
    assert abs(len(held) - len(held_too)) < 32


def _first_batch(setup):
    from fer_jax.data.sources.pipeline import index_batches

    return index_batches(len(setup.train), 16, setup.config.seed)[0]


def failures(*calls):
    """Makes all calls at once; returns what each raises, as text, and the seconds until the last did."""
    began = time.monotonic()

    def attempt(call):
        with pytest.raises(UserError) as caught:
            call()
        return str(caught.value)

    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(attempt, calls)), time.monotonic() - began


def accept(port, count, patience):
    return hosts._accept(hosts._listen(port), count, patience)


def test_a_process_that_never_comes_is_named_to_all():
    port = free_port()
    (first, second), seconds = failures(lambda: accept(port, 4, 1.5), lambda: hosts._call("localhost", port, 2, 4, 1.5))
    assert first == second
    assert "1, 3 of 4" in first
    assert "--process_id" in first
    assert seconds < 10


def test_a_missing_coordinator():
    port = free_port()
    (said,), seconds = failures(lambda: hosts._call("localhost", port, 1, 2, 1.0))
    assert f"localhost:{port}" in said
    assert "--process_id=0" in said
    assert seconds < 10


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ([(1, 3)], "--num_processes=3"),
        ([(1, 4), (1, 4)], "two processes .*--process_id=1"),
    ],
)
def test_processes_that_do_not_fit_together(others, says):
    port = free_port()
    calls = [lambda count=count, n=n: hosts._call("localhost", port, n, count, 5.0) for n, count in others]
    told, seconds = failures(lambda: accept(port, 4, 5.0), *calls)
    assert all(re.search(says, text) for text in told), told
    assert seconds < 5


def test_a_stranger_at_the_door_is_sent_away():
    port = free_port()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        sockets = pool.submit(accept, port, 2, 10.0)
        while True:
            try:
                with socket.create_connection(("localhost", port)) as stranger:
                    stranger.sendall(b"GET / HTTP/1.1\r\n")
                break
            except OSError:
                time.sleep(0.05)
        with pool.submit(hosts._call, "localhost", port, 1, 2, 10.0).result() as sock:
            (other,) = sockets.result().values()
            other.sendall(b"hello")
            assert sock.recv(5) == b"hello"
            other.close()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (dict(coordinator="host:1", num_processes=2, process_id=2), "0 to num_processes-1"),
        (dict(coordinator="host", num_processes=2, process_id=0), "give HOST:PORT"),
        (dict(coordinator="host:0", num_processes=2, process_id=0), "ports from 1 to 65535"),
        (dict(coordinator="host:1234", num_processes=2, process_id=1, patience=math.nan), "--patience=nan: give"),
        (dict(num_processes=2, process_id=1), "need --coordinator"),
        (dict(coordinator="host:1", automatic=True), "--distributed .* leave it out, or leave out --coordinator"),
        (dict(num_processes=2, process_id=0, automatic=True), "--distributed .* leave it out"),
    ],
)
def test_an_incomplete_description(given, says):
    with pytest.raises(UserError, match=says), hosts.join(**given):
        pass


def test_of_many_that_do_not_come_some_are_named():
    with pytest.raises(UserError, match="1, 2, 3, 4, 5, 6, and 4,089 more of 4096"):
        accept(free_port(), 4096, 0.1)


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken, pytest.raises(UserError, match="cannot listen on port .* in use"):
        hosts._listen(taken.getsockname()[1])


def test_the_address_of_a_host_with_a_long_name(monkeypatch):
    name = ".".join(["pod-of-several-hosts"] * 12)
    told = []
    monkeypatch.setattr(hosts, "_initialize", lambda patience: None)
    monkeypatch.setattr(hosts, "_own_address", lambda: name)
    monkeypatch.setattr(hosts, "_accept", lambda listener, count, patience: listener.close() or {})
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr(
        "jax.experimental.multihost_utils.broadcast_one_to_all", lambda value: told.append(value) or value
    )
    with hosts.join(automatic=True):
        pass
    assert bytes(told[0]).decode().startswith(f"{name} ")


def test_what_differs_between_hosts_is_named(monkeypatch):
    told = [{"seed": 0, "data": {"labels": "ab"}}, {"seed": 1, "data": {"labels": "cd"}}]
    texts = [json.dumps(facts).encode() for facts in told]

    def gather(value):
        if np.ndim(value) == 0:
            return np.array([len(text) for text in texts])
        return np.stack([np.frombuffer(text.ljust(len(value)), np.uint8) for text in texts])

    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", gather)
    with pytest.raises(UserError) as caught:
        hosts.agree("config", told[0], "give the same")
    for part in ("process 1 of 2", "config", "data.labels: 'ab' -> 'cd'; seed: 0 -> 1", "give the same"):
        assert part in str(caught.value)
    texts[1] = texts[0]
    hosts.agree("config", told[0], "give the same")


def test_other_configs_are_refused_by_both_before_anything_is_prepared(run_py, tmp_path):
    port = free_port()
    both = [
        run_py(
            *(
                "--config=experiments/baseline.py:smoke",
                f"--config.seed={number}",
                f"--config.data.data_dir={tmp_path}",
            ),
            *(f"--workdir={tmp_path / 'run'}", f"--coordinator=localhost:{port}"),
            *("--num_processes=2", f"--process_id={number}"),
            wait=False,
        )
        for number in (0, 1)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [2, 2], outputs
    for output in outputs:
        (line,) = error_lines(output)
        assert "command line" in line
        assert "config.data" not in line
        assert "config.seed: 0 -> 1" in line
        assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_that_loses_a_process_goes_on_where_it_was(run_py, tmp_path, results_of):
    def both(port):
        return [
            run_py(
                *("--config=experiments/baseline.py:smoke", "--config.model.depth=10", "--config.model.width=8"),
                *("--config.train.batch_size=16", "--config.train.max_steps=300", "--config.data.path=disk"),
                *("--config.train.log_every_steps=5", "--config.train.eval_every_epochs=0.5"),
                *("--config.evaluation.report=False", f"--workdir={tmp_path / 'run'}"),
                *(f"--coordinator=localhost:{port}", "--num_processes=2", f"--process_id={number}"),
                wait=False,
            )
            for number in (0, 1)
        ]

    for gone in (1, 0):
        processes = both(free_port())
        known = {p.name for p in (tmp_path / "run" / "checkpoints").glob("*")}
        while not {p.name for p in (tmp_path / "run" / "checkpoints").glob("*/manifest.json")} or known == {
            p.name for p in (tmp_path / "run" / "checkpoints").glob("*")
        }:
            assert all(process.poll() is None for process in processes)
            time.sleep(0.05)
        processes[gone].send_signal(signal.SIGKILL)
        output, _ = processes[1 - gone].communicate(timeout=60)
        status = processes[1 - gone].returncode
        assert status == 2 if gone else status != 0
        assert f"process {gone} of 2 is lost" in output
        processes[gone].communicate()
    processes = both(free_port())
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "resumed at step" in outputs[0]
    assert results_of(tmp_path / "run")["steps"] == 300
