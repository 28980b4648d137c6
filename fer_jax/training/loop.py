"""The training loop of one run, from its config to its results.

Order matters: evaluate, save, take the next batch, step. A checkpoint holds everything that the next step reads, and
the evaluation before it has been counted. So a run that is killed anywhere resumes from its newest checkpoint as if
nothing had happened: batches are a function of the step number, random keys of (seed, stream, step), and
metrics.jsonl is cut back to the step of the checkpoint.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import deque
from typing import Any

import jax
import numpy as np
from clu.parameter_overview import get_parameter_overview
from etils import epath

from fer_jax.config.fields import Config
from fer_jax.config.protocol import protocol
from fer_jax.engine.memory import explained
from fer_jax.engine.mesh import any_process, device_name, is_main
from fer_jax.evaluation.evaluate import Evaluator, score
from fer_jax.runs.checkpoint import has_checkpoint
from fer_jax.runs.workdir import changed_machine, check_owner, claim, with_kept_files
from fer_jax.training import results
from fer_jax.training.initial import read_initial
from fer_jax.training.interim import InterimReport
from fer_jax.training.log import Progress
from fer_jax.training.run import Run
from fer_jax.training.runner import StepRunner
from fer_jax.training.setup import Setup, make_setup, memory_advice
from fer_jax.training.state import num_parameters


class Interrupted(Exception):
    """A signal stopped the run; it is saved and can be resumed."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} at step {step}, saved")
        self.signum = signum


def train(config: Config, workdir: epath.Path) -> dict[str, Any]:
    """Trains one run in `workdir`, from its newest checkpoint if there is one.

    Returns:
        What was written to results.json.

    Raises:
        UserError: for bad input, and if a loss term stops being finite.
        Interrupted: after SIGTERM or Ctrl-C, with the run saved.
    """
    began = time.perf_counter()
    check_owner(workdir, config)
    finished = results.print_finished(workdir)
    if finished is not None:
        return finished

    setup = make_setup(with_kept_files(config, workdir))  # data, mesh, model, optimizer
    # Initial weights are read before anything is written; a run with a checkpoint does not need them again.
    start = None if has_checkpoint(workdir / "checkpoints") else read_initial(setup)
    account = start.account if start else None
    with claim(workdir, config, setup.model_fields.files, account), explained(setup.mesh, memory_advice(config)):
        run = Run(setup, workdir, began, start)  # restores the newest checkpoint, or initializes
        if is_main():
            print(_summary(run), flush=True)
            if start:
                print(start.describe(), flush=True)
            if not run.step:
                print(get_parameter_overview(run.state.params, include_stats=False), flush=True)
        del start  # its arrays are in the state now
        evaluator = Evaluator(setup.task, setup.mesh, config.evaluation.batch_size)
        _train(run, evaluator, began)
        return results.finish(run, evaluator)


def _train(run: Run, evaluator: Evaluator, began: float) -> None:
    """Trains `run` to its last step. `began`: when the command started, for the time to the first step."""
    setup, train_config = run.setup, run.setup.config.train
    steps = StepRunner(setup, run.step)
    progress = Progress(setup.total_steps, run.step, setup.task.steps_per_epoch, enabled=is_main())
    log, interim = TrainingLog(run, steps, progress), InterimReport(run)
    programs = 0
    with Signals() as signals, contextlib.closing(progress), contextlib.closing(steps):
        while run.step < setup.total_steps:
            first = run.step
            run.state, metrics, made = steps.run(run.state, _next_stop(setup, first) - first)
            run.step += made
            progress.advance(run.step)
            log.add(first, metrics, made * setup.images_per_step)
            if steps.programs() > programs:  # this dispatch compiled: not a part of the speed
                jax.block_until_ready(metrics)
                if not programs:
                    progress.say(f"  first step after {time.perf_counter() - began:.1f} s")
                    signals.hold()
                programs = steps.programs()
                log.restart_clock()
            # One dispatch computes while the host reads the one before: this hides the host, and delays little.
            log.read(keep=1)

            end_of_phase = run.step in setup.phase_ends
            if end_of_phase or evaluation_is_due(run.step, setup.eval_steps, setup.total_steps):
                log.read()
                outputs, scores = {}, {}
                if len(setup.validation):
                    outputs = evaluator(run.state.variables(), setup.validation, views=False)
                    scores = score(outputs, setup.validation, bootstrap=0, task=setup.task)
                progress.say(run.update_best(scores))
                if end_of_phase and train_config.phase_restores_best:
                    run.return_to_best()
                run.save()
                if scores:
                    interim.write(outputs, scores)
                log.restart_clock()

            if _should_stop(signals, run.step // train_config.log_every_steps > first // train_config.log_every_steps):
                log.read()
                run.save()
                raise Interrupted(signals.caught[0], run.step)
        run.count_wall_seconds()
    if signals.caught and jax.process_count() == 1:  # after the last checkpoint
        raise Interrupted(signals.caught[0], run.step)


class TrainingLog:
    """Moves the metrics of dispatches from the device into the run's record, its log files and the terminal."""

    def __init__(self, run: Run, steps: StepRunner, progress: Progress):
        self._run, self._steps, self._progress = run, steps, progress
        self._since, self._waited = time.perf_counter(), 0.0  # of what is not yet in the record
        self._logged = self._so_far()
        self._pending: deque[tuple[int, Any, int]] = deque()

    def add(self, first: int, metrics: Any, images: int) -> None:
        """Takes the metrics [steps] of the steps after `first`, still on the device, and how many images they saw."""
        self._pending.append((first, metrics, images))

    def restart_clock(self) -> None:
        """Excludes the time until now, and the images of pending dispatches, from the speed."""
        self._pending = deque((first, metrics, 0) for first, metrics, _ in self._pending)
        self._since, self._waited = time.perf_counter(), self._steps.waited

    def read(self, keep: int = 0) -> None:
        """Waits for all dispatches but the newest `keep`, and writes the log lines that are then complete.

        Raises:
            UserError: if a value is not finite.
        """
        record, read_to, lines = self._run.record, None, []
        while len(self._pending) > keep:
            first, metrics, images = self._pending.popleft()
            fetched = jax.device_get(metrics)
            count = len(fetched["loss/total"])
            lines += self._run.add_metrics(first, [{k: float(v[i]) for k, v in fetched.items()} for i in range(count)])
            record.images += images
            read_to = first + count
        if read_to is None:
            return
        now, waited = time.perf_counter(), self._steps.waited
        record.seconds += now - self._since
        record.waited += waited - self._waited
        self._since, self._waited = now, waited
        if lines:
            images, seconds, waited = np.maximum(self._so_far() - self._logged, (0, 1e-9, 0)).tolist()
            self._logged = self._so_far()
            timing = {"images_per_second": images / seconds, "seconds": seconds, "waiting": waited / seconds}
            self._run.timing_log.append({"step": read_to} | timing)
            left = (self._run.setup.total_steps - read_to) * self._run.setup.images_per_step
            self._progress.show(read_to, lines[-1], timing, left)

    def _so_far(self) -> np.ndarray:
        """Returns [images, seconds, seconds waited] of the whole run."""
        record = self._run.record
        return np.array([record.images, record.seconds, record.waited])


def evaluation_is_due(step: int, every: int, total: int) -> bool:
    """Whether to evaluate after `step`: at multiples of `every` and at the end, but not shortly before the end."""
    return step == total or (step % every == 0 and total - step > every // 2)


def _next_stop(setup: Setup, step: int) -> int:
    """The next step after which something besides training may be due: no dispatch goes beyond it."""
    next_evaluation = (step // setup.eval_steps + 1) * setup.eval_steps
    ends = (*setup.phase_ends, *(stage.end for stage in setup.stages))
    return min(next_evaluation, *(end for end in ends if end > step))


def _should_stop(signals: Signals, ask: bool) -> bool:
    """Whether a signal asks to stop now; several processes ask each other only where `ask` is true."""
    if jax.process_count() == 1:
        return bool(signals.caught)
    # All processes must stop at the same step. Asking each other costs a round trip, so it is done rarely.
    if not ask:
        return False
    stop = any_process(bool(signals.caught))
    if stop and not signals.caught:
        signals.caught.append(signal.SIGTERM)
    return stop


class Signals:
    """Collects SIGTERM and SIGINT from `hold` on; the second Ctrl-C ends the process at once.

    Before `hold` any signal ends it at once: there is nothing to save before the first step, and Python cannot handle
    a signal while XLA compiles.
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


def _summary(run: Run) -> str:
    """What is about to be trained, in a few lines."""
    setup, config, train = run.setup, run.setup.config, run.setup.train
    height, width, channels = train.picture_shape
    where = "in device memory" if setup.resident else "streamed"
    batch, devices = (
        f"{config.train.batch_size} images",
        f"{setup.mesh.size} device{'s' if setup.mesh.size > 1 else ''}",
    )
    objective = f", objective {config.objective}" if config.objective else ""
    lines = [
        f"{config.experiment}:{config.variant} (method {config.method}{objective}, seed {config.seed}) in "
        f"{run.workdir} on {device_name()}, {devices}",
        f"  data   {train.name}: {len(train)} training and {len(setup.validation)} validation {train.unit} "
        f"{height}x{width}x{channels}, resized to {config.data.image_size} pixels, {where}; "
        f"{len(train.classes)} classes",
    ]
    if setup.instances:
        batch = f"{config.train.batch_size} x {setup.instances.frames} frames"
        counts = train.frame_counts()
        lines.append(
            f"         {counts['frames']:,} training frames, {counts['without_face']:,} of them without a face; "
            f"{counts['clips_without_face']:,} clips without any face"
        )
    if noise := setup.label_noise:
        lines.append(
            f"         label noise, {noise['kind']}: {noise['changed']:,} of {noise['examples']:,} training labels "
            f"changed, {100 * noise['changed_share']:.1f} %"
        )
    if sentence := protocol(config, train.folds):
        lines.append(f"  test   {sentence}")
    lines.append(
        f"  model  {num_parameters(run.state.params):,} parameters; {setup.total_steps} steps of "
        f"{batch} = {setup.total_steps / setup.task.steps_per_epoch:.4g} epochs"
    )
    if run.step:
        lines.append(f"  resumed at step {run.step} of {setup.total_steps}")
        if changed := changed_machine(run.workdir):
            lines.append(f"  not the machine that the run began on, so last digits may differ: {changed}")
    return "\n".join(lines)
