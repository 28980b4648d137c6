"""Log files that can be wound back, and the first value that broke."""

import contextlib
import math
import os
import re
import types
from typing import Any

import numpy as np
import pytest
from etils import epath

from fer_jax.errors import UserError
from fer_jax.training import interim, loop
from fer_jax.training.log import JsonLines, Progress, add_step, first_not_finite, read_lines
from fer_jax.training.loop import evaluation_is_due
from fer_jax.training.state import RunRecord


def test_rewinding_drops_later_lines_and_a_torn_one(tmp_path):
    path = epath.Path(tmp_path / "m.jsonl")
    log = JsonLines(path)
    for step in (2, 4, 6):
        log.append({"step": step})
    path.write_text(path.read_text() + '{"step": 8, "lo')
    log.rewind(4)
    assert read_lines(path) == [{"step": 2}, {"step": 4}]
    log.append({"step": 5})
    assert len(read_lines(path)) == 3


def test_a_damaged_line_costs_itself_alone(tmp_path):
    path = epath.Path(tmp_path / "m.jsonl")
    path.write_bytes(b'{"step": 2}\n\xff\xfe\n{"step": "3"}\n5\n\0\0\n{"step": 4}\n{"step": 6}\n')
    JsonLines(path).rewind(4)
    assert path.read_text() == '{"step": 2}\n{"step": 4}\n'


def test_a_log_that_has_lost_lines_before_the_checkpoint_is_refused(tmp_path):
    path = epath.Path(tmp_path / "m.jsonl")
    path.write_text('{"step": 2}\n{"step": 6}\n')
    with pytest.raises(UserError, match=f"{path} has 1 of the 2 lines .* saved step 4: restore it"):
        JsonLines(path).rewind(4, expected=2)
    assert "6" in path.read_text()


def test_a_log_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    path = epath.Path(tmp_path / "m.jsonl")
    path.write_text('{"step": 2}\n')

    def refused(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refused)  # a file's permissions do not stop root
    with pytest.raises(UserError, match=f"cannot read {path}: Permission denied; check its permissions"):
        JsonLines(path).rewind(1)
    assert path.read_text() == '{"step": 2}\n'


def test_the_term_is_blamed_before_the_sum():
    records = [
        {"loss/a": 1.0, "loss/total": 1.0, "grad_norm": 1.0},
        {"loss/a": 1.0, "loss/b": math.nan, "loss/total": math.nan, "grad_norm": math.inf},
    ]
    assert [first_not_finite(record) for record in records] == ["", "loss/b"]
    assert first_not_finite({"loss/a": 1.0, "loss/total": 1.0, "grad_norm": math.inf}) == "grad_norm"


def test_a_window_is_the_mean_of_its_steps_and_the_last_rate():
    window = add_step({}, {"loss/total": 1.0, "learning_rate": 0.1})
    window = add_step(window, {"loss/total": 3.0, "learning_rate": 0.2})
    assert window == {"loss/total": (4.0, 2), "learning_rate": (0.2, 1)}


def test_a_narrow_terminal_keeps_bar_and_time_left(monkeypatch):
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    reader, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    means = {f"loss/{name}": 1.0 for name in ("total", "cross_entropy", "compactness", "distribution")}
    with os.fdopen(terminal, "w") as stderr, monkeypatch.context() as patched:
        patched.setattr("sys.stderr", stderr)
        progress = Progress(338_000, 1000, 42.0, enabled=True)
        progress.show(1500, means | {"accuracy": 0.5}, {"images_per_second": 1234.0, "waiting": 0.0}, 1)
        progress.close()
    shown = b""
    with contextlib.suppress(OSError):  # how Linux ends what a closed terminal had to say
        while chunk := os.read(reader, 10_000):
            shown += chunk
    os.close(reader)
    assert max(map(len, shown.decode().split("\r"))) < 80
    assert "|          | ETA ?  epoch 35.71/8048  loss 1.000" in shown.decode()


def test_the_speed_leaves_out_what_is_not_training(monkeypatch):
    now, record, metrics = [0.0], RunRecord(), {"loss/total": np.zeros(1)}
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    run: Any = types.SimpleNamespace(record=record, add_metrics=lambda *_: [])
    steps: Any = types.SimpleNamespace(waited=0.0)
    log = loop.TrainingLog(run, steps, Progress(9, 0, 1.0, enabled=False))
    log.add(0, metrics, 100)
    now[0], steps.waited = 2.0, 0.5
    log.read()
    log.add(1, metrics, 70)
    now[0], steps.waited = 10.0, 0.7  # an evaluation, while the second step was not read
    log.restart_clock()
    log.add(2, metrics, 50)
    now[0] = 11.0
    log.read()
    assert (record.images, record.seconds, record.waited) == (150, 3.0, 0.5)


def test_the_report_is_there_while_the_run_trains(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(interim, "FIRST", 0.0)
    loop.train(tiny(eval_every_epochs=0.2), epath.Path(tmp_path / "run"))  # draws no other report
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert re.search("Still training, at step [1-5] of 6", page)
    assert "Confusion" in page


@pytest.mark.parametrize(
    ("every", "total", "steps"),
    [(84, 506, [84, 168, 252, 336, 420, 506]), (5, 12, [5, 12]), (5, 13, [5, 10, 13]), (10, 4, [4]), (1, 3, [1, 2, 3])],
)
def test_evaluations_come_every_so_often_and_at_the_end(every, total, steps):
    assert [s for s in range(1, total + 1) if evaluation_is_due(s, every, total)] == steps
