"""What fer_jax itself runs, set up for a benchmark: the baseline on synthetic faces drawn for the occasion."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax

from benchmarks.machine import accelerated
from experiments.baseline import get_config
from fer_jax.training.runner import StepRunner
from fer_jax.training.setup import make_setup

DATA_VARIABLE = "FER_JAX_BENCHMARK_DATA"
EVALUATED = 4  # batches of a split that is evaluated
STEPS_PER_DISPATCH = 20  # on an accelerator; the loop takes up to 50


@contextlib.contextmanager
def faces_folder() -> Iterator[str]:
    """Yields the folder for the drawn faces: the one that the environment names, or a temporary one."""
    named = os.environ.get(DATA_VARIABLE)
    if named:
        yield named
        return
    with tempfile.TemporaryDirectory() as folder:
        yield folder


def baseline_config(size: int, batch: int, data_dir: str) -> Any:
    """Returns the config of the ResNet-18 baseline at full width on faces of `size` pixels, flipped and shifted."""
    config = get_config("synthetic")
    config.model.width = 64
    config.data.data_dir = data_dir
    config.data.builder = get_config("smoke").data.builder  # a small data set
    # Enough for EVALUATED batches once whole people have been held out.
    config.data.builder.train = 7 * (-(-EVALUATED * batch * 5 // 28) + 10)
    config.data.builder.size = config.data.image_size = size
    config.augmentation.train = (f"shift:{size // 16}", "flip")
    config.train.batch_size = batch
    config.train.devices = 1
    config.train.eval_every_epochs = config.train.epochs = 1000.0  # training steps only
    config.train.steps_per_dispatch = STEPS_PER_DISPATCH if accelerated() else 1
    return config


def training_run(config: Any, steps: int) -> Callable[[], None]:
    """Returns a turn of `steps` training steps as the loop makes them, without its logs and checkpoints.

    Args:
        config: of the run.
        steps: a multiple of the steps per dispatch, or of 1 on a CPU.
    """
    setup = make_setup(config)
    feed, state = StepRunner(setup, 0), setup.init()

    def run() -> None:
        nonlocal state
        done, before = 0, None
        while done < steps:  # as in the loop, the host is at most one dispatch ahead of the device
            state, metrics, count = feed.run(state, setup.steps_per_dispatch)
            jax.block_until_ready(before)
            done, before = done + count, metrics
        jax.block_until_ready((state, before))
        if done != steps:
            raise ValueError(f"{steps} steps are not a whole number of dispatches")

    return run
