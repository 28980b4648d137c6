"""`fer-jax runs --tensorboard=FOLDER`: the lines of metrics.jsonl as TensorBoard reads them."""

from __future__ import annotations

import pathlib
import time
from typing import Any

from etils import epath

from fer_jax.errors import UserError, writing
from fer_jax.parsing import read_lines

EVENTS = "events.out.tfevents.fer_jax"


def add_events(run: epath.Path, folder: pathlib.Path) -> None:
    """Adds to `folder`/events.out.tfevents.fer_jax the lines of a run that are not in it yet, one event for each line.

    It can be called repeatedly while the run trains. A file with other lines, from an earlier run of this name, is
    overwritten.

    Raises:
        UserError: if the package tensorboard is missing, or the file cannot be written.
    """
    try:
        from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise UserError(
            f"{folder}: writing this folder needs TensorBoard: pip install 'fer_jax[tensorboard]'"
        ) from error

    def event(line: dict[str, Any]) -> Event:
        kind, step = line.pop("kind"), line.pop("step")
        numbers = {f"{kind}/{name}": value for name, value in line.items() if isinstance(value, int | float)}
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()]
        return Event(step=step, wall_time=time.time(), summary=Summary(value=values))

    def content(events: list[Event]) -> list[tuple[int, bytes]]:
        return [(event.step, event.summary.SerializeToString()) for event in events]

    events = [
        Event(wall_time=time.time(), file_version="brain.Event:2"),
        *map(event, read_lines(run / "metrics.jsonl")),
    ]
    path = folder / EVENTS
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        there = [*map(Event.FromString, RawEventFileLoader(str(path)).Load())] if path.exists() else []
        same = content(there) == content(events[: len(there)])
        with path.open("ab" if same else "wb") as file:
            for made in events[len(there) if same else 0 :]:
                RecordWriter(file).write(made.SerializeToString())
