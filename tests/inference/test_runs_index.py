"""Lists of runs: other pages are left alone, and TensorBoard gets each logged line once."""

import pytest
from etils import epath

from fer_jax.errors import UserError
from fer_jax.inference.runs_index import Row, write_index
from fer_jax.inference.tensorboard import EVENTS, add_events


def test_a_page_of_somebody_else_is_left_alone(tmp_path):
    folder, rows = epath.Path(tmp_path), [Row("fdrl/synthetic", "not begun")]
    write_index(folder, rows)
    assert write_index(folder, rows).exists()  # its own page, again
    (tmp_path / "index.html").write_text("<html>mine")
    with pytest.raises(UserError, match=r"index\.html was not written by fer_jax"):
        write_index(folder, rows)
    assert (tmp_path / "index.html").read_text() == "<html>mine"


def test_tensorboard_gets_each_line_once(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"kind": "train", "step": 5, "epoch": 0.5, "loss/total": 1.5}\n{"kind": "validation", "st')
    add_events(epath.Path(tmp_path), tmp_path / "board")
    log.write_text(log.read_text().splitlines()[0] + '\n{"kind": "validation", "step": 10, "accuracy": 0.25}\n')
    for _ in range(2):
        add_events(epath.Path(tmp_path), tmp_path / "board")
    events = loader.LegacyEventFileLoader(str(tmp_path / "board" / EVENTS)).Load()
    found = [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value]
    assert found == [(5, "train/epoch", 0.5), (5, "train/loss/total", 1.5), (10, "validation/accuracy", 0.25)]
    log.write_text('{"kind": "train", "step": 5, "loss/total": 2.5}\n')  # deleted and trained again
    add_events(epath.Path(tmp_path), tmp_path / "board")
    events = loader.LegacyEventFileLoader(str(tmp_path / "board" / EVENTS)).Load()
    assert [value.simple_value for event in events for value in event.summary.value] == [2.5]
