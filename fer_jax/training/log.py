"""What a run writes while it trains: metrics.jsonl (decided by the seed), timing.jsonl (decided by the machine), and
progress on the terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from tqdm import tqdm

from fer_jax.engine.mesh import is_main
from fer_jax.errors import UserError, writing
from fer_jax.parsing import read_lines
from fer_jax.storage import in_bucket, sync, write_whole


class JsonLines:
    """An append-only file of JSON objects, one per line, that can be cut back to a step; written by the main process.

    A bucket cannot append: there `flush` writes all lines again.
    """

    def __init__(self, path: epath.Path):
        self.path, self._write = path, is_main()
        self._lines: list[str] = []  # of a file in a bucket

    def rewind(self, step: int, expected: int = 0) -> None:
        """Drops the lines after `step` and damaged lines, such as a last line that a kill cut short.

        Raises:
            UserError: if fewer than the `expected` number of lines are left.
        """
        if not self._write:
            return
        self._lines = [json.dumps(line) + "\n" for line in read_lines(self.path) if line["step"] <= step]
        if len(self._lines) < expected:
            raise UserError(
                f"{self.path} has {len(self._lines)} of the {expected} lines that the run had written when it saved "
                f"step {step}: restore it, or delete the work directory {self.path.parent} to start again"
            )
        if self.path.exists():
            with writing(self.path):
                write_whole(self.path, "".join(self._lines))

    def append(self, line: Mapping[str, Any]) -> None:
        if not self._write:
            return
        text = json.dumps(line) + "\n"
        if in_bucket(self.path):
            self._lines.append(text)
            return
        with writing(self.path), self.path.open("a") as file:
            file.write(text)

    def flush(self) -> None:
        """Writes all lines to storage; called before each checkpoint, because a restart cuts back to its step."""
        if not self._write:
            return
        with writing(self.path):
            if in_bucket(self.path):
                write_whole(self.path, "".join(self._lines))
            elif self.path.exists():
                sync(self.path)


class Progress:
    """A progress bar on a terminal, or a printed line per log window; silent on all processes but the first."""

    def __init__(self, total_steps: int, step: int, steps_per_epoch: float, enabled: bool):
        self._total, self._per_epoch, self._enabled = total_steps, steps_per_epoch, enabled
        self._bar = None
        if enabled and sys.stderr.isatty():
            form = "{percentage:3.0f}%|{bar:10}| ETA {remaining}  {desc}"  # a narrow terminal cuts off the end
            self._bar = tqdm(total=total_steps, initial=step, dynamic_ncols=True, leave=False, bar_format=form)

    def advance(self, step: int) -> None:
        """Moves the bar to `step`."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def show(self, step: int, means: Mapping[str, float], timing: Mapping[str, float], images_left: int) -> None:
        """Shows a log window: epoch, mean loss terms, accuracy, speed, time spent waiting for data, and time left."""
        terms = {k.removeprefix("loss/"): v for k, v in means.items() if k.startswith("loss/")}
        total = terms.pop("total", math.nan)
        parts = ", ".join(f"{name} {value:.3g}" for name, value in terms.items())
        speed, wait = timing["images_per_second"], timing["waiting"]
        text = (
            f"epoch {step / self._per_epoch:5.2f}/{self._total / self._per_epoch:.4g}  loss {total:.3f}"
            + (f"  train acc {means['accuracy']:.3f}" if "accuracy" in means else "")
            + f"  {speed:.0f} img/s"
            + (f"  waiting for data {wait:.0%}" if wait > 0.02 else "")
            + (f"  ({parts})" if len(terms) > 1 else "")
        )
        if self._bar is not None:
            self._bar.set_description_str(text)
        else:
            eta = tqdm.format_interval(images_left / speed) if speed > 0 else "?"
            self.say(f"step {step:>5}/{self._total}  ETA {eta}  {text}")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        if not self._enabled:
            return
        if self._bar is not None:
            tqdm.write(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def add_step(window: Mapping[str, Sequence[float]], record: Mapping[str, float]) -> dict[str, Sequence[float]]:
    """Adds a step to the (sum, count) of each metric of a log window; the learning rate keeps only its last value."""
    before = {name: (0.0, 0) if name == "learning_rate" else window.get(name, (0.0, 0)) for name in record}
    return {name: (before[name][0] + value, before[name][1] + 1) for name, value in record.items()}


def first_not_finite(record: Mapping[str, float]) -> str:
    """Returns the name of a value that is not finite, preferably a loss term to their total; '' if all are finite."""
    broken = (name for name, value in record.items() if not math.isfinite(value))
    return min(broken, key=lambda name: (not name.startswith("loss/"), name == "loss/total", name), default="")
