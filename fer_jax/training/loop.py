"""The one training loop. Order matters: evaluate, save, take the next batch, step.

A save holds everything that the next step reads, and the evaluation before it has already been counted. So a run
that is killed anywhere goes on from its last save as if nothing had happened: the batches are a function of the step
number, the random keys of (seed, stream, step), and metrics.jsonl is wound back to the step of the save.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from fer_jax.errors import UserError
from fer_jax.evaluation.evaluate import Evaluator, score
from fer_jax.storage import absolute
from fer_jax.training import finish
from fer_jax.training.checkpoint import Checkpoint, Checkpoints, holds_a_save
from fer_jax.training.config import Config, check_config
from fer_jax.training.feed import Feed
from fer_jax.training.logging import JsonLines, Progress, Stopwatch, first_broken, window_means
from fer_jax.training.memory import explained
from fer_jax.training.pretrained import Start, read_start
from fer_jax.training.protocol import protocol
from fer_jax.training.setup import Setup, make_setup
from fer_jax.training.sharding import any_process, is_main
from fer_jax.training.state import TrainState, num_parameters
from fer_jax.training.stored import check_classes
from fer_jax.training.workdir import check_owner, claim, device_name, with_stored_words

LOWER_IS_BETTER = frozenset({"nll"})


class Interrupted(Exception):
    """A signal asked the run to stop; it has saved and can go on later."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} at step {step}, saved")
        self.signum = signum


@dataclasses.dataclass
class Memory:
    """What the loop remembers besides the state; saved with it as plain JSON.

    Attributes:
        best: score and step of the best evaluation so far.
        last: scores of the newest evaluation.
        window: metrics of the steps since the last log line, so that a line after a resume is the same line.
        images, seconds: trained so far, over all the times the run was started.
        started_from: the account of the weights it began with; empty from scratch.
        classes: the names of the model's outputs, in order.
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


def train(config: Config, workdir: epath.Path) -> dict[str, Any]:
    """Trains as `config` says, in `workdir`, from where an earlier start of the same run left off.

    Returns:
        What it wrote to results.json.

    Raises:
        UserError: for bad input, and when a loss term stops being finite.
        Interrupted: after SIGTERM or Ctrl-C, with the run saved.
    """
    began = time.perf_counter()
    check_config(config)
    check_owner(workdir, config)
    finished = finish.say_finished(workdir)
    if finished is not None:
        return finished

    setup = make_setup(with_stored_words(config, workdir))
    # Read before anything is written; a run that has saved never needs its weights again.
    start = None if holds_a_save(workdir / "checkpoints") else read_start(setup)
    with claim(workdir, config, setup.task.words, start.account if start else None), explained(setup.mesh, config):
        return _train(setup, workdir, began, start)


def _train(setup: Setup, workdir: epath.Path, began: float, start: Start | None) -> dict[str, Any]:
    """The loop itself, in a folder that is this run's own; `began` is when the command was started."""
    config = setup.config
    checkpoints = Checkpoints(absolute(workdir / "checkpoints"), config.train.keep_checkpoints)
    state, best, memory = _restore_or_init(setup, checkpoints, start)
    step, total = int(state.step), setup.total_steps
    metrics_log = JsonLines(workdir / "metrics.jsonl", write=is_main())
    timing_log = JsonLines(workdir / "timing.jsonl", write=is_main())
    metrics_log.rewind(step)
    timing_log.rewind(step)
    _announce(setup, state, workdir, step)
    if start:
        _say(start.describe())

    feed = Feed(setup, step)
    evaluator = Evaluator(setup.task, setup.mesh, config.evaluation.batch_size)
    progress = Progress(total, step, setup.steps_per_epoch, enabled=is_main())
    wall_before, watch = memory.wall_seconds, Stopwatch()
    pending: list[tuple[int, Any, int]] = []  # of dispatches: first step, metrics, images that count for the speed

    def save() -> None:
        memory.wall_seconds = wall_before + time.perf_counter() - began
        metrics_log.flush()
        timing_log.flush()
        checkpoints.save(step, Checkpoint(state, best, dataclasses.asdict(memory)))

    def settle(keep: int = 0) -> None:
        """Reads the metrics of all dispatches but the last `keep`, and writes the log lines that are full then.

        It waits for those dispatches alone; what they computed has been on its way to the host since they were begun.
        Stops at a value that is not finite.
        """
        settled = 0
        while len(pending) > keep:
            first, metrics, images = pending.pop(0)
            records = _by_step(jax.device_get(metrics))
            if broken := first_broken(records):
                where, name = broken
                raise UserError(_divergence(name, first + where + 1, records[where]))
            memory.window += records
            watch.images += images
            settled = first + len(records)
        if not settled:
            return
        images, seconds, waited = watch.split(feed.waited)
        memory.images, memory.seconds, memory.waited = (
            memory.images + images,
            memory.seconds + seconds,
            memory.waited + waited,
        )
        means = {}
        for line in _full_windows(memory, settled, config.train.log_every_steps, total):
            place = {"kind": "train", "step": line["step"], "epoch": line["step"] / setup.steps_per_epoch}
            metrics_log.append(place | line)
            means = line
        if means:
            timing = watch.lap()
            timing_log.append({"step": settled} | timing)
            progress.show(settled, means, timing, (total - settled) * setup.images_per_step)

    programs = 0
    with Signals() as signals, _closing(progress, checkpoints, feed):
        while step < total:
            state, metrics, made = feed.run(state, _next_stop(setup, step) - step)
            compiled = feed.programs() > programs
            pending.append((step, metrics, 0 if compiled else made * setup.images_per_step))
            step += made
            progress.advance(step)
            if compiled:  # that is no part of the speed
                jax.block_until_ready(metrics)
                if not programs:
                    progress.say(f"  first step after {time.perf_counter() - began:.1f} s")
                    signals.hold()
                programs = feed.programs()
                pending[:] = [(first, values, 0) for first, values, _ in pending]
                watch.restart(feed.waited)
            # One dispatch computes while the host reads the one before: enough to hide the host, little to wait for.
            settle(keep=1)

            if evaluation_is_due(step, setup.eval_steps, total) or step in setup.phase_ends:
                settle()
                outputs = evaluator(state.variables(), setup.validation, views=False)  # what selects is plain
                scores = score(outputs, setup.validation, bootstrap=0, task=setup.task)
                best = _judge(config, memory, scores, step, state, best, progress)
                metrics_log.append(
                    {"kind": "validation", "step": step, "epoch": step / setup.steps_per_epoch}
                    | finish.main_scores(scores)
                )
                if step in setup.phase_ends and config.train.phase_restores_best:
                    state = _with_variables(state, best)
                save()
                watch.restart(feed.waited)

            if _should_stop(signals, _passed(step, made, config.train.log_every_steps)):
                settle()
                save()
                raise Interrupted(signals.caught[0], step)

        memory.wall_seconds = wall_before + time.perf_counter() - began
    return finish.write_results(setup, evaluator, workdir, state, best, dataclasses.asdict(memory))


def _restore_or_init(setup: Setup, checkpoints: Checkpoints, start: Start | None) -> tuple[TrainState, Any, Memory]:
    """Finds the state to go on from.

    1. The run's own newest checkpoint that is whole.
    2. Else step 0 with the weights of `config.init_from`; what they do not hold is drawn as in 3.
    3. Else step 0 from scratch.
    """
    like = setup.abstract_state()
    stored, problems = checkpoints.restore(like, _evaluated(like))
    for problem in problems:
        _say(f"warning: {problem}; the one before is used")
    if stored is not None:
        check_classes(stored.record, setup.train.classes, checkpoints.folder)
        known = {field.name for field in dataclasses.fields(Memory)}
        return stored.state, stored.best, Memory(**{k: v for k, v in stored.record.items() if k in known})
    state, memory = setup.init(), Memory(classes=list(setup.train.classes))
    if start:
        state, memory.started_from = start.into(state, setup.mesh), start.account
    return state, _copy(_evaluated(state)), memory


def _judge(
    config: Any,
    memory: Memory,
    scores: dict[str, Any],
    step: int,
    state: TrainState,
    best: Any,
    progress: Progress,
) -> Any:
    """Compares an evaluation with the best one so far; returns the variables of the better model."""
    metric = config.selection.metric
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    memory.last = {"step": step} | finish.main_scores(scores)
    better = not memory.best or sign * scores[metric] > sign * memory.best[metric]
    if better or config.selection.rule == "last":
        memory.best = dict(memory.last)
        best = _copy(_evaluated(state))  # a copy: the next step reuses the state's own memory
    where = "TEST (selection on it: config.selection.rule)" if config.selection.rule == "best_on_test" else "validation"
    shown = ("accuracy", "mean_recall", "nll") if "accuracy" in scores else scores["measures"]
    words = "  ".join(f"{name.replace('_', ' ')} {scores[name]:{'.3f' if name == 'nll' else '.4f'}}" for name in shown)
    progress.say(f"step {step:>5}  {where}: {words}" + ("  (best so far)" if better else ""))
    return best


def _evaluated(state: TrainState) -> dict[str, Any]:
    variables = dict(state.variables())
    return {"params": variables.pop("params"), "collections": variables}


def _with_variables(state: TrainState, best: dict[str, Any]) -> TrainState:
    """The state with other parameters and collections; a copy, because the next step reuses the state's memory."""
    average = None if state.average is None else _copy(best)
    return state.replace(**_copy(best), average=average)


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _by_step(metrics: dict[str, Any]) -> list[dict[str, float]]:
    steps = len(next(iter(metrics.values())))
    return [{k: float(v[i]) for k, v in metrics.items()} for i in range(steps)]


def _divergence(name: str, step: int, record: dict[str, float]) -> str:
    return (
        f"training broke at step {step}: {name} is {record[name]} (learning rate {record['learning_rate']:.3g}); "
        "lower config.optimizer.learning_rate, set config.optimizer.clip_norm=1.0, or warm up with "
        "config.schedule.warmup_epochs; the last checkpoint is from before"
    )


def evaluation_is_due(step: int, every: int, total: int) -> bool:
    """Whether to evaluate after `step`: every so often and at the end, but not just before the end."""
    return step == total or (step % every == 0 and total - step > every // 2)


def _next_stop(setup: Setup, step: int) -> int:
    """The next step after which something may have to be done besides training."""
    ends = [end for end in (*setup.phase_ends, setup.total_steps) if end > step]
    return min(_next_multiple(step, setup.eval_steps), ends[0])


def _next_multiple(step: int, every: int) -> int:
    return (step // every + 1) * every


def _passed(step: int, made: int, every: int) -> bool:
    """Whether the last `made` steps reached or passed a multiple of `every`."""
    return step // every > (step - made) // every


def _full_windows(memory: Memory, step: int, every: int, total: int) -> Iterator[dict[str, float]]:
    """Takes the log windows that are complete at `step` out of the memory: their last step and their means."""
    first = step - len(memory.window)
    while first < step and (last := min(_next_multiple(first, every), total)) <= step:
        records, memory.window = memory.window[: last - first], memory.window[last - first :]
        yield {"step": last} | window_means(records)
        first = last


def _should_stop(signals: Signals, ask: bool) -> bool:
    if jax.process_count() == 1:
        return bool(signals.caught)
    # All processes must stop at the same step; asking each other costs a round trip, so only now and then.
    if not ask:
        return False
    stop = any_process(bool(signals.caught))
    if stop and not signals.caught:
        signals.caught.append(signal.SIGTERM)
    return stop


class Signals:
    """Collects SIGTERM and SIGINT from `hold` on; a second Ctrl-C is not held back.

    Before it they end the process at once: until the first step is made there is nothing to save, and Python cannot
    answer a signal while XLA compiles.
    """

    NUMBERS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.caught: list[int] = []

    def __enter__(self) -> Signals:
        # None where a library installed its handler from C; only the main thread may change handlers.
        self._before: dict[int, Any] = {s: signal.signal(s, signal.SIG_DFL) or signal.SIG_DFL for s in self.NUMBERS}
        return self

    def hold(self) -> None:
        for number in self.NUMBERS:
            signal.signal(number, self._catch)

    def _catch(self, signum: int, _: Any) -> None:
        self.caught.append(signum)
        signal.signal(signum, signal.SIG_DFL)

    def __exit__(self, *_: Any) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)


@contextmanager
def _closing(progress: Progress, checkpoints: Checkpoints, feed: Feed) -> Iterator[None]:
    try:
        yield
    finally:
        feed.close()
        progress.close()
        checkpoints.close()


def _announce(setup: Setup, state: TrainState, workdir: epath.Path, step: int) -> None:
    config, train = setup.config, setup.train
    height, width, channels = train.picture_shape
    where = "in device memory" if setup.resident else "streamed"
    batch, counts = f"{config.train.batch_size} images", ""
    if setup.instances:
        batch = f"{config.train.batch_size} x {setup.instances.frames} frames"
        of = train.frame_counts()
        counts = (
            f"\n         training has {of['frames']:,} frames, {of['without_face']:,} of them without a face, and "
            f"{of['clips_without_face']:,} clips without any face"
        )
    if noise := setup.label_noise:
        counts += (
            f"\n         label noise, {noise['kind']}: {noise['changed']:,} of {noise['examples']:,} training labels "
            f"changed, {100 * noise['changed_share']:.1f} %"
        )
    _say(
        f"{config.experiment}:{config.variant} (method {config.method}, seed {config.seed}) in {workdir} on "
        f"{device_name()}, {setup.mesh.size} device{'s' if setup.mesh.size > 1 else ''}\n"
        f"  data   {train.name}: {len(train)} training and {len(setup.validation)} validation {train.unit} "
        f"{height}x{width}x{channels}, seen at {config.data.image_size} pixels, {where}; "
        f"{len(train.classes)} classes{counts}\n{_tested(setup)}"
        f"  model  {num_parameters(state.params):,} parameters; {setup.total_steps} steps of "
        f"{batch} = {setup.total_steps / setup.steps_per_epoch:.4g} epochs"
    )
    if step:
        _say(f"  resumed at step {step} of {setup.total_steps}")


def _tested(setup: Setup) -> str:
    sentence = protocol(setup.config, setup.train.folds)
    return f"  test   {sentence}\n" if sentence else ""


def _say(text: str) -> None:
    if is_main():
        print(text, flush=True)
