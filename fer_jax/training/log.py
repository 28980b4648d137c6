"""What a run writes while it trains: metrics.jsonl (what the seed decides), timing.jsonl (what the machine
decides), and progress on the terminal."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from tqdm import tqdm

from fer_jax.errors import reading, writing
from fer_jax.storage import expect_file, in_bucket, write_whole

BUCKET_SECONDS = 60.0  # between two writings of a whole file into a bucket


class JsonLines:
    """An append-only file of JSON objects, one a line, that can be wound back to a step.

    A bucket does not append: there the lines are kept, and written as a whole every now and then and by `flush`.
    """

    def __init__(self, path: epath.Path, write: bool):
        self.path, self._write = path, write
        self._lines: list[str] | None = [] if in_bucket(path) else None
        self._written = time.monotonic()

    def rewind(self, step: int) -> None:
        """Drops the lines beyond `step`, and those that are damaged: the last one that a kill cut short."""
        if not (self._write and self.path.exists()):
            return
        kept = [json.dumps(line) + "\n" for line in read_lines(self.path) if line["step"] <= step]
        with writing(self.path):
            write_whole(self.path, "".join(kept))
        if self._lines is not None:
            self._lines = kept

    def append(self, line: Mapping[str, Any]) -> None:
        if not self._write:
            return
        text = json.dumps(line) + "\n"
        if self._lines is None:
            with writing(self.path), self.path.open("a") as file:
                file.write(text)
            return
        self._lines.append(text)
        if time.monotonic() - self._written > BUCKET_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Sees to it that all lines are stored: to be called before a save, which a restart winds back to."""
        if self._write and self._lines is not None:
            with writing(self.path):
                write_whole(self.path, "".join(self._lines))
            self._written = time.monotonic()


def read_lines(path: epath.Path) -> list[dict[str, Any]]:
    """Returns the lines of such a file that are whole; none where there is no file.

    A kill cuts the last one short, and a machine that goes down may leave any bytes at all: they cost their own line.
    """
    expect_file(path)
    objects = []
    with reading(path):
        lines = path.read_bytes().splitlines() if path.exists() else []
    for line in lines:
        with contextlib.suppress(ValueError):  # no JSON, or no text
            value = json.loads(line)
            if isinstance(value, dict) and isinstance(value.get("step"), int):
                objects.append(value)
    return objects


class Progress:
    """A progress bar on a terminal; in a log, a line per call of `show`. Silent on all processes but the first."""

    def __init__(self, total_steps: int, step: int, steps_per_epoch: float, enabled: bool):
        self._total, self._per_epoch, self._enabled = total_steps, steps_per_epoch, enabled
        self._bar = None
        if enabled and sys.stderr.isatty():
            self._bar = tqdm(total=total_steps, initial=step, unit="step", dynamic_ncols=True, leave=False)

    def advance(self, step: int) -> None:
        """Moves the bar to `step`."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def show(self, step: int, means: Mapping[str, float], timing: Mapping[str, float], images_left: int) -> None:
        """Shows a log window: epoch, means of the loss terms and the accuracy, speed, waiting for data, ETA."""
        terms = {k.removeprefix("loss/"): v for k, v in means.items() if k.startswith("loss/")}
        total = terms.pop("total", math.nan)
        parts = ", ".join(f"{name} {value:.3g}" for name, value in terms.items())
        speed, wait = timing["images_per_second"], timing["waiting"]
        text = (
            f"epoch {step / self._per_epoch:5.2f}/{self._total / self._per_epoch:.4g}  loss {total:.3f}"
            + (f" ({parts})" if len(terms) > 1 else "")
            + (f"  train acc {means['accuracy']:.3f}" if "accuracy" in means else "")
            + f"  {speed:.0f} img/s"
            + (f"  waiting for data {wait:.0%}" if wait > 0.02 else "")
        )
        if self._bar is not None:
            self._bar.set_description_str(text)
        else:
            eta = images_left / speed if speed > 0 else math.nan
            self.say(f"step {step:>5}/{self._total}  {text}  ETA {clock(eta)}")

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


class Stopwatch:
    """Counts images, seconds and seconds of waiting for data, leaving out what is not training."""

    def __init__(self) -> None:
        self.images = 0
        self._lap = (0, 0.0, 0.0)
        self._since, self._waited = time.perf_counter(), 0.0

    def restart(self, waited: float) -> None:
        """Forgets the time since the last `split`: an evaluation, a save or a compilation was under way."""
        self._since, self._waited, self.images = time.perf_counter(), waited, 0

    def split(self, waited: float) -> tuple[int, float, float]:
        """Returns (images, seconds, seconds waited) since the last `split` or `restart`."""
        since = (self.images, time.perf_counter() - self._since, waited - self._waited)
        self._lap = tuple(a + b for a, b in zip(self._lap, since, strict=True))  # type: ignore[assignment]
        self.restart(waited)
        return since

    def lap(self) -> dict[str, float]:
        """Returns the speed over all splits since the last `lap`."""
        images, seconds, waited = self._lap
        self._lap = (0, 0.0, 0.0)
        seconds = max(seconds, 1e-9)
        return {"images_per_second": images / seconds, "seconds": seconds, "waiting": waited / seconds}


def window_means(window: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of each scalar over the steps of a log window (of the rate, its last value)."""
    means = {key: math.fsum(record[key] for record in window) / len(window) for key in window[0]}
    means["learning_rate"] = window[-1]["learning_rate"]
    return means


def first_broken(records: Sequence[Mapping[str, float]]) -> tuple[int, str] | None:
    """Returns (position, name) of the first value that is not finite: a loss term before the sum it breaks."""
    for position, record in enumerate(records):
        names = sorted((k for k in record if not math.isfinite(record[k])), key=_blame)
        if names:
            return position, names[0]
    return None


def clock(seconds: float) -> str:
    """Returns a duration as m:ss or h:mm:ss."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _blame(name: str) -> tuple[int, str]:
    order = 0 if name.startswith("loss/") and name != "loss/total" else 1 if name == "loss/total" else 2
    return order, name
