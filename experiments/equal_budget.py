"""Training budgets in core-minutes (CPU time of the process): how many epochs a budget allows, and what a run used.

A run that watched the clock would end at a different step each time: it could be neither resumed exactly nor repeated,
and its learning-rate schedule needs to know the number of steps. So the cost of a step and of an evaluation is measured
once per method, and the resulting number of epochs is kept in a record.
"""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

from experiments.comparison import REMEDY, facts
from fer_jax.config.fields import Config
from fer_jax.engine.mesh import device_name
from fer_jax.evaluation.evaluate import Evaluator
from fer_jax.parsing import number, read_text
from fer_jax.runs.workdir import git_commit, versions
from fer_jax.storage import write_whole
from fer_jax.training.runner import StepRunner
from fer_jax.training.setup import make_setup

BLOCKS, STEPS = 5, 20  # measured: the median block counts
KEPT_EVERY = 10.0  # seconds: so much of a run's core-seconds is lost if it is killed


def epochs_for(minutes: float, steps_per_epoch: float, step: float, evaluation: float) -> float:
    """Returns how many epochs `minutes` of one core allow, in whole tenths.

    Args:
        minutes: core-minutes.
        steps_per_epoch: steps in an epoch.
        step: core-seconds of a training step.
        evaluation: core-seconds of the evaluation after each epoch.
    """
    return max(math.floor(600 * minutes / (steps_per_epoch * step + evaluation)), 1) / 10


def measure(config: Config, minutes: float, data_dir: str) -> dict[str, Any]:
    """Returns the record of how many epochs `minutes` allow; compilation and startup are not counted."""
    config.data.data_dir = data_dir
    began = time.perf_counter()
    setup = make_setup(config)
    state, blocks = setup.init(), []
    with contextlib.closing(StepRunner(setup, 0)) as steps:
        for _ in range(1 + BLOCKS):  # the first compiles
            before, made, metrics = time.process_time(), 0, None
            while made < STEPS:
                state, metrics, count = steps.run(state, STEPS - made)
                made += count
            jax.block_until_ready((state, metrics))
            blocks.append((time.process_time() - before) / STEPS)
    evaluator, evaluations = Evaluator(setup.task, setup.mesh, config.evaluation.batch_size), [0.0]
    for _ in range(2 if len(setup.validation) else 0):  # the first compiles
        before = time.process_time()
        evaluator(state.variables(), setup.validation, views=False)
        evaluations.append(time.process_time() - before)
    step, evaluation = statistics.median(blocks[1:]), evaluations[-1]
    return {
        "epochs": epochs_for(minutes, setup.task.steps_per_epoch, step, evaluation),
        "core_minutes": minutes,
        "steps_per_epoch": setup.task.steps_per_epoch,
        "core_seconds_per_step": step,
        "core_seconds_of_blocks": blocks,
        "core_seconds_per_evaluation": evaluation,
    } | facts(config, here(time.perf_counter() - began))


def here(seconds: float) -> dict[str, Any]:
    """Returns the results that `facts` needs, for work that took some seconds but is not a finished run."""
    return {"device": device_name(), "versions": versions(), "git_commit": git_commit(), "wall_seconds": seconds}


@contextlib.contextmanager
def core_seconds(workdir: epath.Path) -> Iterator[Any]:
    """Yields a function that returns the processor time of all threads inside this block, over all starts of a run.

    It is kept beside the work directory, because a run may be killed.
    """
    path, before = _kept(workdir), kept_seconds(workdir)
    began, ended = time.process_time(), threading.Event()

    def spent() -> float:
        return before + time.process_time() - began

    def keep() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        while not ended.wait(KEPT_EVERY):
            write_whole(path, f"{spent():.1f}")

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield spent
    finally:
        ended.set()
        keeper.join()
        write_whole(path, f"{spent():.1f}")


def kept_seconds(workdir: epath.Path) -> float:
    """Returns the core-seconds that a run has used so far."""
    path = _kept(workdir)
    return (number(read_text(path, REMEDY)) or 0.0) if path.exists() else 0.0


def _kept(workdir: epath.Path) -> pathlib.Path:
    return pathlib.Path(f"{os.fspath(workdir)}.core_seconds")
