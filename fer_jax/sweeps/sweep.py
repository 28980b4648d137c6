"""Several runs as one: every fold, several seeds, or every fold of several seeds.

Each run has its own folder in the work directory of the sweep, with the config that it has when it is trained alone.
So a sweep that was killed resumes where it was, and runs that were trained there before, or on another machine, count.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from fer_jax.config.check import check_config
from fer_jax.config.fields import Config, assign
from fer_jax.config.protocol import ALL
from fer_jax.engine.mesh import on_main
from fer_jax.errors import UserError
from fer_jax.evaluation.task import Task
from fer_jax.inference import trained
from fer_jax.inference.evaluate import check_changes, evaluation_folder, make_places
from fer_jax.inference.evaluate import evaluate as evaluate_run
from fer_jax.report import write_report
from fer_jax.runs.results import write_scores
from fer_jax.runs.workdir import check_owner, claim, fold_folder, stored_config, with_kept_files
from fer_jax.sweeps import folds, seeds
from fer_jax.sweeps.members import Member, members, summary, sweeps_over
from fer_jax.training import loop
from fer_jax.training.results import print_finished
from fer_jax.training.setup import make_setup


def train(config: Config, workdir: epath.Path) -> dict[str, Any]:
    """Trains the run or the sweep of `config` in `workdir`; finished runs of a sweep are not trained again.

    Returns:
        What was written to results.json.

    Raises:
        UserError: for bad input, before anything is written.
        Interrupted: after SIGTERM or Ctrl-C, with the run that was being trained saved.
    """
    if not sweeps_over(config):
        return loop.train(config, workdir)
    check_config(config)
    grows = seeds.grows(config, workdir)
    if not grows:
        check_owner(workdir, config)
        finished = print_finished(workdir)
        if finished is not None:
            return finished
    task, count = _checked_first(config, workdir)
    with claim(workdir, config, grows=grows):
        runs = [dataclasses.replace(m, results=train(m.config, m.folder)) for m in members(config, workdir, count)]
        return _write(config, task, runs, workdir, workdir / "results.json")


def evaluate(
    path: epath.Path,
    split: str = "",
    out: epath.Path | None = None,
    changes: Mapping[str, Any] | None = None,
    dataset: str = "",
) -> dict[str, Any]:
    """Scores the trained model of a run or a model file, or those of all runs of a sweep and all of them together.

    Args:
        path: the folder of a run or a sweep, which is not changed, or a model file.
        split: as in `inference.evaluate`; must be empty for a sweep of folds.
        out: the file of the scores; of a sweep `evaluation/results.json` in its folder by default, or
            `evaluation-<split>/results.json` if a split is named.
        changes, dataset: as in `inference.evaluate`.

    Raises:
        UserError: as `inference.evaluate`, and if a run of the sweep is not finished.
    """
    config = stored_config(path) if (path / "config.json").exists() else None
    if config is None or not sweeps_over(config):
        return evaluate_run(path, split, out, changes, dataset)
    if config.fold == ALL and (split or dataset):
        one = fold_folder(_first(config, path).folder if config.seeds > 1 else path, 1)
        raise UserError(
            f"{path} holds a run for every fold, but they cannot be scored together on '{split or dataset}': score "
            f"one of them, for example --model={one}"
        )
    check_changes(changes or {}, config)
    for field, value in (changes or {}).items():
        assign(config, field, value)
    task, count = None, config.seeds
    if sweeps_over(config) == "fold":
        first = trained.build(*trained.read(str(fold_folder(path, 1))), changes or {})
        task, count = first.task, first.card["run"]["fold"]["of"]
    runs = members(config, path, count)
    for member in runs:
        if not (member.folder / "results.json").exists():
            raise UserError(
                f"{member.name} in {member.folder} is not finished: start the command that trains {path} again, or "
                f"score a {sweeps_over(config)} that is finished"
            )
    folder = evaluation_folder(path, split, dataset) if split or dataset else path / "evaluation"
    target = out or folder / "results.json"
    on_main(lambda: make_places(target, folder))  # before the work, not after it
    scored = []
    for member in runs:
        results = evaluate(member.folder, split, changes=changes, dataset=dataset)
        one_run = not sweeps_over(member.config)
        own = evaluation_folder(member.folder, results["split"], dataset) if one_run else member.folder / folder.name
        scored.append(dataclasses.replace(member, results=results, folder=own))
    return _write(config, task, scored, folder, target)


def _first(config: Config, workdir: epath.Path) -> Member:
    return members(config, workdir, 1)[0]


def _checked_first(config: Config, workdir: epath.Path) -> tuple[Task, int]:
    """Returns what the first run trains, and how many runs the sweep has.

    Raises:
        UserError: for what is wrong with the first run, before anything is written.
    """
    if not sweeps_over(config):
        setup = make_setup(with_kept_files(config, workdir))
        return setup.task, setup.train.folds
    first = _first(config, workdir)
    task, count = _checked_first(first.config, first.folder)
    return task, config.seeds if sweeps_over(config) == "seed" else count


def _write(
    config: Config, task: Task | None, runs: Sequence[Member], folder: epath.Path, target: epath.Path
) -> dict[str, Any]:
    """Scores all runs together, those of folds by `task`; writes the report into `folder`, then `target`."""
    results: dict[str, Any] = {}

    def write() -> None:
        if task is None or sweeps_over(config) == "seed":
            scores, predictions = seeds.combine(runs), None  # each seed has its own predictions
        else:
            scores, predictions = folds.combine(config, task, runs)
        results.update(summary(config, runs, scores, folder))
        facts = results | {"config": config.to_dict()}
        report = functools.partial(write_report, folder / "report", results=facts, history=[], predictions=predictions)
        write_scores(target, folder, results, report if config.evaluation.report else lambda: None)

    on_main(write)
    return results
