"""A run on its way: all that belongs to one run and to no other, whoever makes its steps."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from fer_jax.engine.mesh import is_main
from fer_jax.errors import UserError
from fer_jax.runs.checkpoint import Checkpoint, Checkpoints
from fer_jax.runs.stored import check_classes
from fer_jax.storage import absolute
from fer_jax.training.finish import main_scores
from fer_jax.training.log import JsonLines, first_broken, window_means
from fer_jax.training.setup import Setup
from fer_jax.training.state import TrainState
from fer_jax.weights.start import Start

LOWER_IS_BETTER = frozenset({"nll"})


@dataclasses.dataclass
class Memory:
    """What a run remembers besides its state; saved with it as plain JSON.

    Attributes:
        best: score and step of the best evaluation so far.
        last: scores of the newest evaluation.
        window: metrics of the steps since the last log line, so that a line after a resume is the same line.
        images, seconds: trained so far, over all the times the run was started.
        started_from: the account of the weights it began with; empty from scratch.
        classes: the names of the model's outputs, in order.
        side_by_side: how many runs were trained in the same program, and shared its seconds.
    """

    best: dict[str, Any] = dataclasses.field(default_factory=dict)
    last: dict[str, Any] = dataclasses.field(default_factory=dict)
    window: list[dict[str, float]] = dataclasses.field(default_factory=list)
    images: int = 0
    seconds: float = 0.0
    wall_seconds: float = 0.0
    waited: float = 0.0
    started_from: dict[str, Any] = dataclasses.field(default_factory=dict)
    classes: list[str] = dataclasses.field(default_factory=list)
    side_by_side: int = 1


class Running:
    """A run between its newest save and its end.

    Attributes:
        setup, workdir: what it is, and where.
        name: what its lines begin with where several runs print; empty where one does.
        step: steps made.
        state: the state at `step`, or at the last time that something needed it: the loop carries it in between.
        best: variables of the best validation so far.
        memory: what it remembers besides.
    """

    def __init__(self, setup: Setup, workdir: epath.Path, began: float, start: Start | None, name: str = ""):
        self.setup, self.workdir, self.name = setup, workdir, name
        self.checkpoints = Checkpoints(absolute(workdir / "checkpoints"), setup.config.train.keep_checkpoints)
        self.state, self.best, self.memory = _restore_or_init(setup, self.checkpoints, start)
        self.step = int(self.state.step)
        self.metrics_log = JsonLines(workdir / "metrics.jsonl", write=is_main())
        self.timing_log = JsonLines(workdir / "timing.jsonl", write=is_main())
        self.metrics_log.rewind(self.step)
        self.timing_log.rewind(self.step)
        self._began, self._wall_before = began, self.memory.wall_seconds

    def begin(self) -> None:
        """Starts the clock anew: what went before was the time of others, for whom this run has waited."""
        self._began = time.perf_counter()

    def remember(self, first: int, records: Sequence[dict[str, float]]) -> None:
        """Takes the metrics of the steps after `first`, and stops at a value that is not finite."""
        if broken := first_broken(records):
            where, name = broken
            raise UserError(self.name + _divergence(name, first + where + 1, records[where]))
        self.memory.window += records

    def spend(self, images: int, seconds: float, waited: float) -> None:
        """Adds to what the run has taken so far."""
        memory = self.memory
        memory.images, memory.seconds, memory.waited = (
            memory.images + images,
            memory.seconds + seconds,
            memory.waited + waited,
        )

    def log_windows(self, step: int, every: int) -> Iterator[dict[str, float]]:
        """Writes the log lines that are complete at `step`, as far as is remembered, and yields their means."""
        for line in _full_windows(self.memory, step, every, self.setup.total_steps):
            self.metrics_log.append({"kind": "train"} | self._place(int(line["step"])) | line)
            yield line

    def log_scores(self, scores: Mapping[str, Any]) -> None:
        """Writes the line of an evaluation."""
        self.metrics_log.append({"kind": "validation"} | self._place(self.step) | main_scores(scores))

    def judge(self, scores: dict[str, Any]) -> str:
        """Compares an evaluation with the best one so far and keeps the better model; returns that in a line."""
        config, memory = self.setup.config, self.memory
        metric = config.selection.metric
        sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        memory.last = {"step": self.step} | main_scores(scores)
        better = not memory.best or sign * scores[metric] > sign * memory.best[metric]
        if better or config.selection.rule == "last":
            memory.best = dict(memory.last)
            self.best = _copy(_evaluated(self.state))  # a copy: the next step reuses the state's own memory
        on_test = config.selection.rule == "best_on_test"
        where = "TEST (selection on it: config.selection.rule)" if on_test else "validation"
        shown = ("accuracy", "mean_recall", "nll") if "accuracy" in scores else scores["measures"]
        words = (f"{name.replace('_', ' ')} {scores[name]:{'.3f' if name == 'nll' else '.4f'}}" for name in shown)
        return f"{self.name}step {self.step:>5}  {where}: {'  '.join(words)}" + ("  (best so far)" if better else "")

    def return_to_best(self) -> None:
        """Goes on with the best variables; copies, because the next step reuses the state's memory."""
        average = None if self.state.average is None else _copy(self.best)
        self.state = self.state.replace(**_copy(self.best), average=average)

    def save(self) -> None:
        """Saves everything that the next step reads."""
        self.count_wall_seconds()
        self.metrics_log.flush()
        self.timing_log.flush()
        self.checkpoints.save(self.step, Checkpoint(self.state, self.best, dataclasses.asdict(self.memory)))

    def count_wall_seconds(self) -> None:
        self.memory.wall_seconds = self._wall_before + time.perf_counter() - self._began

    def _place(self, step: int) -> dict[str, float]:
        return {"step": step, "epoch": step / self.setup.steps_per_epoch}


def _restore_or_init(setup: Setup, checkpoints: Checkpoints, start: Start | None) -> tuple[TrainState, Any, Memory]:
    """Finds the state to go on from.

    1. The run's own newest checkpoint that is whole.
    2. Else step 0 with the weights of `config.init_from`; what they do not hold is drawn as in 3.
    3. Else step 0 from scratch.
    """
    like = setup.abstract_state()
    stored, problems = checkpoints.restore(like, _evaluated(like))
    for problem in problems:
        if is_main():
            print(f"warning: {problem}; the one before is used", flush=True)
    if stored is not None:
        check_classes(stored.record, setup.train.classes, checkpoints.folder)
        known = {field.name for field in dataclasses.fields(Memory)}
        return stored.state, stored.best, Memory(**{k: v for k, v in stored.record.items() if k in known})
    state, memory = setup.init(), Memory(classes=list(setup.train.classes))
    if start:
        state, memory.started_from = start.into(state, setup.mesh), start.account
    return state, _copy(_evaluated(state)), memory


def _evaluated(state: TrainState) -> dict[str, Any]:
    variables = dict(state.variables())
    return {"params": variables.pop("params"), "collections": variables}


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _divergence(name: str, step: int, record: Mapping[str, float]) -> str:
    return (
        f"training broke at step {step}: {name} is {record[name]} (learning rate {record['learning_rate']:.3g}); "
        "lower config.optimizer.learning_rate, set config.optimizer.clip_norm=1.0, or warm up with "
        "config.schedule.warmup_epochs; the last checkpoint is from before"
    )


def _full_windows(memory: Memory, step: int, every: int, total: int) -> Iterator[dict[str, float]]:
    """Takes the log windows that are complete at `step` out of the memory: their last step and their means."""
    first = step - len(memory.window)
    while first < step and (last := min(next_multiple(first, every), total)) <= step:
        records, memory.window = memory.window[: last - first], memory.window[last - first :]
        yield {"step": last} | window_means(records)
        first = last


def next_multiple(step: int, every: int) -> int:
    """Returns the first multiple of `every` beyond `step`."""
    return (step // every + 1) * every
