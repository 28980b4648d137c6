"""The one training loop. Order matters: evaluate, save, take the next batch, step.

A save holds everything that the next step reads, and the evaluation before it has already been counted. So a run
that is killed anywhere goes on from its last save as if nothing had happened: the batches are a function of the step
number, the random keys of (seed, stream, step), and metrics.jsonl is wound back to the step of the save.

The loop drives one run, or several seeds side by side (`lanes.py`). What belongs to a run is `Running`; the loop knows
the order of things and who is where: a run whose newest save is ahead of the others' waits for them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from etils import epath

from fer_jax.config.fields import Config, check_config
from fer_jax.config.protocol import protocol
from fer_jax.engine.memory import explained
from fer_jax.engine.mesh import any_process, is_main
from fer_jax.evaluation.evaluate import Evaluator, score
from fer_jax.runs.checkpoint import holds_a_save
from fer_jax.runs.workdir import check_owner, claim, device_name, with_kept_files
from fer_jax.training import finish
from fer_jax.training.feed import Feed
from fer_jax.training.lanes import Alone, Lanes, of_seeds
from fer_jax.training.log import Progress, Stopwatch
from fer_jax.training.run import Running, next_multiple
from fer_jax.training.setup import Setup, make_setup
from fer_jax.training.state import num_parameters
from fer_jax.weights.start import Start, read_start


class Interrupted(Exception):
    """A signal asked the run to stop; it has saved and can go on later."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} at step {step}, saved")
        self.signum = signum


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

    setup = make_setup(with_kept_files(config, workdir))
    start = _start(setup, workdir)
    with (
        claim(workdir, config, setup.model_fields.files, start.account if start else None),
        explained(setup.mesh, config),
    ):
        run = Running(setup, workdir, began, start)
        return _train([run], Alone(Feed(setup, run.step)), start, began)[0]


def train_side_by_side(configs: Sequence[Config], workdirs: Sequence[epath.Path]) -> list[dict[str, Any]]:
    """Trains runs that differ in nothing but their seed in one program, each on a device of its own.

    Args:
        configs: of the runs, none of them finished.
        workdirs: theirs; each ends as that of a run alone.

    Returns:
        The results of each.

    Raises:
        UserError, Interrupted: as `train`.
    """
    began = time.perf_counter()
    for config, workdir in zip(configs, workdirs, strict=True):
        check_config(config)
        check_owner(workdir, config)
    common = make_setup(with_kept_files(configs[0], workdirs[0]), training=False)  # no batch is shared by devices
    setups = of_seeds(common, configs)
    starts = [_start(setup, workdir) for setup, workdir in zip(setups, workdirs, strict=True)]
    with contextlib.ExitStack() as claims:
        claims.enter_context(explained(common.mesh, common.config))
        runs = []
        for setup, workdir, start in zip(setups, workdirs, starts, strict=True):
            account = start.account if start else None
            claims.enter_context(claim(workdir, setup.config, setup.model_fields.files, account))
            runs.append(Running(setup, workdir, began, start, name=f"seed {setup.config.seed}: "))
        ended = [run for run in runs if run.step == common.total_steps]  # killed between its last step and its results
        going = [run for run in runs if run not in ended]
        results = {run.workdir: _train([run], Alone(Feed(run.setup, run.step)), None, began)[0] for run in ended}
        if going:
            lanes = Lanes([run.setup for run in going], min(run.step for run in going))
            trained = _train(going, lanes, starts[0], began)
            results |= dict(zip([run.workdir for run in going], trained, strict=True))
        return [results[run.workdir] for run in runs]


def _start(setup: Setup, workdir: epath.Path) -> Start | None:
    """Reads the weights to begin with, before anything is written; a run that has saved never needs them again."""
    return None if holds_a_save(workdir / "checkpoints") else read_start(setup)


def _train(runs: Sequence[Running], carrier: Alone | Lanes, start: Start | None, began: float) -> list[dict[str, Any]]:
    """The loop itself, in folders that are the runs' own; `began` is when the command was started."""
    setup = runs[0].setup  # what the runs have in common; they differ in their seed alone
    config, total, every = setup.config, setup.total_steps, setup.config.train.log_every_steps
    step = min(run.step for run in runs)
    here = [run for run in runs if run.step == step]  # the others wait until the step of their newest save
    _announce(runs)
    if start:
        _say(start.describe())

    evaluator = Evaluator(setup.task, setup.mesh, config.evaluation.batch_size)
    progress = Progress(total, step, setup.steps_per_epoch, enabled=is_main())
    carried = carrier.carry([run.state for run in runs])
    pending: list[tuple[int, Any, int]] = []  # of dispatches: first step, metrics, images that count for the speed
    watch = Stopwatch()
    for run in runs:
        run.memory.side_by_side = len(runs)

    def collect() -> None:
        """Gives every run that is here its state."""
        for run, state in zip(runs, carrier.states(carried), strict=True):
            if run in here:
                run.state = state

    def settle(keep: int = 0) -> None:
        """Reads the metrics of all dispatches but the last `keep`, and writes the log lines that are full then.

        It waits for those dispatches alone; what they computed has been on its way to the host since they were begun.
        Stops at a value that is not finite.
        """
        settled = 0
        while len(pending) > keep:
            first, metrics, images = pending.pop(0)
            for run, records in zip(runs, carrier.records(metrics), strict=True):
                if run in here:
                    run.remember(first, records)
                    settled = first + len(records)
            watch.images += images
        if not settled:
            return
        spent = watch.split(carrier.waited)
        for run in here:
            run.spend(*spent)
        lines = [list(run.log_windows(settled, every)) for run in here]
        if not lines[0]:
            return
        timing = watch.lap()
        for run in here:
            run.timing_log.append({"step": settled} | timing)
        shown = timing | {"images_per_second": len(here) * timing["images_per_second"]}
        means = _over_runs([of_run[-1] for of_run in lines])
        progress.show(settled, means, shown, (total - settled) * setup.images_per_step * len(here))

    def evaluate() -> None:
        collect()
        for run in here:
            # What selects is plain.
            outputs = evaluator(carrier.whole(run.state.variables()), setup.validation, views=False)
            scores = score(outputs, setup.validation, bootstrap=0, task=setup.task)
            progress.say(run.judge(scores))
            run.log_scores(scores)
            if step in setup.phase_ends and config.train.phase_restores_best:
                run.return_to_best()

    programs = 0
    with Signals() as signals, _closing(progress, runs, carrier):
        while step < total:
            waiting = [run.step for run in runs if run.step > step]
            carried, metrics, made = carrier.run(carried, min([_next_stop(setup, step), *waiting]) - step)
            compiled = carrier.programs() > programs
            pending.append((step, metrics, 0 if compiled else made * setup.images_per_step))
            step += made
            for run in here:
                run.step = step
            progress.advance(step)
            if compiled:  # that is no part of the speed
                jax.block_until_ready(metrics)
                if not programs:
                    progress.say(f"  first step after {time.perf_counter() - began:.1f} s")
                    signals.hold()
                programs = carrier.programs()
                pending[:] = [(first, values, 0) for first, values, _ in pending]
                watch.restart(carrier.waited)
            # One dispatch computes while the host reads the one before: enough to hide the host, little to wait for.
            settle(keep=1)

            if evaluation_is_due(step, setup.eval_steps, total) or step in setup.phase_ends:
                settle()
                evaluate()
                if step in setup.phase_ends and config.train.phase_restores_best:
                    carried = carrier.carry([run.state for run in runs])
                for run in here:
                    run.save()
                watch.restart(carrier.waited)

            if _should_stop(signals, _passed(step, made, every)):
                settle()
                collect()
                for run in here:
                    run.save()
                raise Interrupted(signals.caught[0], step)

            if step in waiting:  # those who were ahead join
                settle()
                collect()
                for run in runs:
                    if run.step == step and run not in here:
                        run.begin()
                here = [run for run in runs if run.step == step]
                carried = carrier.carry([run.state for run in runs])

        for run in runs:
            run.count_wall_seconds()
    if signals.caught and jax.process_count() == 1:  # while the run was closed, after its last save
        raise Interrupted(signals.caught[0], step)
    return [
        finish.write_results(
            run.setup,
            evaluator,
            run.workdir,
            carrier.whole(run.state),
            carrier.whole(run.best),
            dataclasses.asdict(run.memory),
        )
        for run in runs
    ]


def evaluation_is_due(step: int, every: int, total: int) -> bool:
    """Whether to evaluate after `step`: every so often and at the end, but not just before the end."""
    return step == total or (step % every == 0 and total - step > every // 2)


def _next_stop(setup: Setup, step: int) -> int:
    """The next step after which something may have to be done besides training."""
    ends = (*setup.phase_ends, *(stage.end for stage in setup.stages))
    return min(next_multiple(step, setup.eval_steps), *(end for end in ends if end > step))


def _passed(step: int, made: int, every: int) -> bool:
    """Whether the last `made` steps reached or passed a multiple of `every`."""
    return step // every > (step - made) // every


def _over_runs(means: Sequence[dict[str, float]]) -> dict[str, float]:
    """Returns the mean of each value over the runs."""
    return {name: statistics.mean(of_run[name] for of_run in means) for name in means[0]}


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
def _closing(progress: Progress, runs: Sequence[Running], carrier: Alone | Lanes) -> Iterator[None]:
    try:
        yield
    finally:
        carrier.close()
        progress.close()
        for run in runs:
            run.checkpoints.close()


def _announce(runs: Sequence[Running]) -> None:
    setup, workdir = runs[0].setup, runs[0].workdir
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
    seeds, devices = f"seed {config.seed}", f"{setup.mesh.size} device{'s' if setup.mesh.size > 1 else ''}"
    if len(runs) > 1:
        seeds = f"seeds {', '.join(str(run.setup.config.seed) for run in runs)} side by side"
        workdir = ", ".join([str(workdir), *(run.workdir.name for run in runs[1:])])
        devices += f", {len(runs)} in use for training"
    _say(
        f"{config.experiment}:{config.variant} (method {config.method}, {seeds}) in {workdir} on "
        f"{device_name()}, {devices}\n"
        f"  data   {train.name}: {len(train)} training and {len(setup.validation)} validation {train.unit} "
        f"{height}x{width}x{channels}, seen at {config.data.image_size} pixels, {where}; "
        f"{len(train.classes)} classes{counts}\n{_tested(setup)}"
        f"  model  {num_parameters(runs[0].state.params):,} parameters; {setup.total_steps} steps of "
        f"{batch} = {setup.total_steps / setup.steps_per_epoch:.4g} epochs"
    )
    for run in runs:
        if run.step:
            _say(f"  {run.name}resumed at step {run.step} of {setup.total_steps}")


def _tested(setup: Setup) -> str:
    sentence = protocol(setup.config, setup.train.folds)
    return f"  test   {sentence}\n" if sentence else ""


def _say(text: str) -> None:
    if is_main():
        print(text, flush=True)
