"""What fer_jax itself runs, set up for a benchmark: an experiment on synthetic faces drawn for the occasion."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.machine import accelerated
from fer_jax.data.sources.pipeline import index_batches
from fer_jax.data.sources.rows import mark_valid, take_rows
from fer_jax.engine.mesh import put_replicated
from fer_jax.training.feed import Feed
from fer_jax.training.setup import Setup, make_setup

METHODS = ("baseline", "fdrl", "acnn", "fan", "psr", "word2vec")
DATA_VARIABLE = "FER_JAX_BENCHMARK_DATA"
EVALUATED = 4  # batches of a split that is evaluated
STEPS_PER_DISPATCH = 20  # on an accelerator; the loop takes up to 50
WIDE = 512  # images per step on an accelerator, which the CPU's recipe would leave idle


@contextlib.contextmanager
def faces_folder() -> Iterator[str]:
    """Where faces are drawn: the folder that the environment names, which stays, or one for the moment."""
    named = os.environ.get(DATA_VARIABLE)
    if named:
        yield named
        return
    with tempfile.TemporaryDirectory() as folder:
        yield folder


def make_config(method: str, data_dir: str) -> Any:
    """The config of experiments/METHOD.py:synthetic, with few faces.

    On an accelerator with full width, `WIDE` images a step, and bfloat16, as `config.train.dtype='auto'` has it.
    """
    module = importlib.import_module(f"experiments.{method}")
    config, smoke = module.get_config("synthetic"), module.get_config("smoke")
    clips = "clips" in config.data.dataset
    if accelerated():
        config.model.width = 64
        config.train.batch_size = WIDE // (config.data.clip_frames if clips else 1)
    config.data.data_dir = data_dir
    config.data.builder = smoke.data.builder  # small, and of clips short
    config.data.builder.train = enough(config.train.batch_size if clips else max(64, config.train.batch_size))
    config.train.devices = 1
    config.train.eval_every_epochs = config.train.epochs = 1000.0  # nothing but steps
    config.train.steps_per_dispatch = STEPS_PER_DISPATCH if accelerated() else 1
    return config


def baseline_config(size: int, batch: int, data_dir: str, path: str = "auto") -> Any:
    """The ResNet-18 baseline of full width on faces that are stored with `size` pixels, mirrored and shifted."""
    config = make_config("baseline", data_dir)
    config.model.width = 64
    config.train.batch_size = batch
    config.data.builder.train = enough(EVALUATED * batch)
    config.data.builder.size = config.data.image_size = size
    config.data.path = path
    config.augmentation.crop = 0
    config.augmentation.shift = size // 16
    return config


def enough(images: int) -> int:
    """How many examples to draw, so that so many are left when whole people have been held out."""
    return 7 * (-(-images * 5 // 28) + 10)


def first_batch(setup: Setup) -> dict[str, jax.Array]:
    """The first training batch, on the device."""
    config, source = setup.config, setup.train
    count = len(source) if setup.instances is None else len(setup.instances)
    rows: Any = index_batches(count, config.train.batch_size, config.seed)[0]
    if setup.instances is not None:
        rows = setup.instances.draw(rows, config.seed, 0)
    images = {"frames": source.frames["frames"]} if source.frames else {}
    data = put_replicated(setup.mesh, dict(source.arrays) | images)
    return mark_valid(jax.jit(take_rows)(data, jax.tree.map(np.asarray, rows)))


class FeedRun:
    """Training as the loop does it, many steps per dispatch on an accelerator, without its logs and saves."""

    def __init__(self, config: Any):
        self.setup = make_setup(config)
        self._feed = Feed(self.setup, 0)
        self._state = self.setup.init()

    def steps(self, least: int) -> int:
        """Makes at least so many steps, in whole dispatches, and returns how many once the device is done.

        As in the loop, the host keeps at most one dispatch ahead of the device.
        """
        done, before = 0, None
        while done < least:
            self._state, metrics, count = self._feed.run(self._state, self.setup.steps_per_dispatch)
            jax.block_until_ready(before)
            done, before = done + count, metrics
        jax.block_until_ready((self._state, before))
        return done

    def turn(self, steps: int) -> Callable[[], None]:
        """A turn of exactly `steps` steps; a multiple of the dispatch's, or of 1."""

        def run() -> None:
            if self.steps(steps) != steps:
                raise ValueError(f"{steps} steps are no whole number of dispatches")

        return run

    @property
    def waited(self) -> float:
        """Seconds spent waiting for data so far."""
        return self._feed.waited
