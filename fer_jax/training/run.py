"""Mutable state of one run: train state, best weights, logs, checkpoints."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from fer_jax.engine.mesh import is_main, on_main
from fer_jax.errors import Diverged, UserError
from fer_jax.evaluation.results import main_scores
from fer_jax.runs import checkpoint
from fer_jax.runs.model_file import MODEL, write_model
from fer_jax.storage import absolute
from fer_jax.training.examples import examples_digest
from fer_jax.training.fit import fitted
from fer_jax.training.initial import with_weights
from fer_jax.training.log import JsonLines, add_step, first_not_finite
from fer_jax.training.results import model_card
from fer_jax.training.setup import Setup
from fer_jax.training.state import RunRecord, TrainState
from fer_jax.weights.start import Start

LOWER_IS_BETTER = frozenset({"nll"})


class Run:
    """One run, restored from its newest checkpoint or initialized.

    Attributes:
        setup, workdir: what is trained, and where.
        step: optimizer steps made.
        state: the train state after `step` steps.
        best: variables of the best evaluation so far: {'params', 'collections'}.
        record: everything else that a checkpoint holds.
        metrics_log, timing_log: metrics.jsonl and timing.jsonl.
    """

    def __init__(self, setup: Setup, workdir: epath.Path, began: float, start: Start | None):
        """`began`: when the command was started, by `time.perf_counter`; `start`: initial weights, if any."""
        self.setup, self.workdir = setup, workdir
        self._checkpoints = absolute(workdir / "checkpoints")
        self.state, self.best, self.record = _restore_or_init(setup, self._checkpoints, start)
        self.step = int(self.state.step)
        self.metrics_log = JsonLines(workdir / "metrics.jsonl")
        self.timing_log = JsonLines(workdir / "timing.jsonl")
        self.metrics_log.rewind(self.step, self.record.lines)
        self.timing_log.rewind(self.step)
        self._began, self._wall_before = began, self.record.wall_seconds
        self._model_step: int | None = -1  # the step of the model in the model file

    def add_metrics(self, first: int, records: Sequence[dict[str, float]]) -> list[dict[str, float]]:
        """Adds the metrics of the steps after `first`; writes and returns the log lines that they complete.

        Raises:
            Diverged: if a value is not finite.
        """
        every, lines = self.setup.config.train.log_every_steps, []
        for step, record in enumerate(records, first + 1):
            if name := first_not_finite(record):
                raise Diverged(_divergence(name, step, record))
            self.record.window = add_step(self.record.window, record)
            if step % every == 0 or step == self.setup.total_steps:
                means = {name: total / count for name, (total, count) in self.record.window.items()}
                self._log("train", step, means)
                lines.append(means)
                self.record.window = {}
        return lines

    def update_best(self, scores: dict[str, Any]) -> str:
        """Logs an evaluation and keeps the variables if they are the best so far; returns a line that says so.

        Args:
            scores: empty where no examples are held out; then the newest variables are kept.
        """
        config, record = self.setup.config, self.record
        if not scores:
            record.best = record.last = {"step": self.step}
            self.best = _copy(self.state.evaluated())
            return f"step {self.step:>5}  kept"
        metric = config.selection.metric
        sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        self._log("validation", self.step, main_scores(scores))
        record.last = {"step": self.step} | main_scores(scores)
        better = not record.best or sign * scores[metric] > sign * record.best[metric]
        if better or config.selection.rule == "last":
            record.best = dict(record.last)
            self.best = _copy(self.state.evaluated())  # a copy: the next step reuses the memory of the state
        on_test = config.selection.rule == "best_on_test"
        where = "TEST (selection on it: config.selection.rule)" if on_test else "validation"
        shown = ("accuracy", "mean_recall", "nll") if "accuracy" in scores else scores["measures"]
        words = (f"{name.replace('_', ' ')} {scores[name]:{'.3f' if name == 'nll' else '.4f'}}" for name in shown)
        return f"step {self.step:>5}  {where}: {'  '.join(words)}" + ("  (best so far)" if better else "")

    def return_to_best(self) -> None:
        """Continues from the best variables; copies, because the next step reuses the memory of the state."""
        average = None if self.state.average is None else _copy(self.best)
        self.state = self.state.replace(**_copy(self.best), average=average)

    def save(self) -> None:
        """Writes a checkpoint of everything that the next step reads, and the best model so far as a model file."""
        self.count_wall_seconds()
        self.metrics_log.flush()
        self.timing_log.flush()
        tree, keep = {"state": self.state, "best": self.best}, self.setup.config.train.keep_checkpoints
        checkpoint.save(self._checkpoints, self.step, tree, dataclasses.asdict(self.record), keep)
        if self._model_step != self.record.best.get("step"):
            self._model_step = self.record.best.get("step")
            on_main(self._write_model)

    def _write_model(self) -> None:
        method = self.setup.task.method
        variables = {"params": method.at_test(self.best["params"]), **self.best["collections"]}
        write_model(self.workdir / MODEL, variables, model_card(self.setup, self.state, self.record))

    def count_wall_seconds(self) -> None:
        self.record.wall_seconds = self._wall_before + time.perf_counter() - self._began

    def _log(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Adds a line to metrics.jsonl."""
        place = {"kind": kind, "step": step, "epoch": step / self.setup.task.steps_per_epoch}
        self.metrics_log.append(place | dict(values))
        self.record.lines += 1


def _restore_or_init(setup: Setup, folder: epath.Path, start: Start | None) -> tuple[TrainState, Any, RunRecord]:
    """Returns the state, best variables and record to continue from.

    1. The newest undamaged checkpoint of the run.
    2. Else step 0 with the weights of `config.init_from`, and what they lack initialized as in 3.
    3. Else step 0, initialized at random.
    """
    like = setup.abstract_state()
    digest = examples_digest(setup.train)

    def check(record: Mapping[str, Any]) -> None:
        _check_data(record, setup, digest, folder.parent)

    if stored := checkpoint.restore(folder, {"state": like, "best": like.evaluated()}, check):
        tree, record, problems = stored
        for problem in problems:
            if is_main():
                print(f"warning: {problem}; using the one before it", flush=True)
        return tree["state"], tree["best"], RunRecord(**record)
    state = setup.init()
    record = RunRecord(examples=digest, count=len(setup.train))
    if start:
        state, record.started_from = with_weights(state, start, setup.mesh), start.account
    if setup.task.method.fit:
        state = fitted(setup, state)
    return state, _copy(state.evaluated()), record


def _check_data(record: Mapping[str, Any], setup: Setup, digest: str, workdir: epath.Path) -> None:
    """Raises UserError if the training examples are not those that the run began with."""
    train = setup.train
    if record["examples"] != digest:
        raise UserError(
            f"the training examples of {train.name}, split {setup.config.data.train_split} (pictures, labels or "
            f"classes) have changed since the run in {workdir} began ({record['count']} examples then, {len(train)} "
            "now): restore the data that it was trained on, or give another --workdir; the run was not changed"
        )


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _divergence(name: str, step: int, record: Mapping[str, float]) -> str:
    return (
        f"training diverged at step {step}: {name} is {record[name]} (learning rate {record['learning_rate']:.3g}); "
        "lower config.optimizer.learning_rate, set config.optimizer.clip_norm=1.0, or warm up with "
        "config.schedule.warmup_epochs; the newest checkpoint is from before that step"
    )
