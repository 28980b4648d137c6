"""Cross-validation: every fold trained and tested in turn by the one loop, and the scores over all of them.

Two numbers are in use. `pooled` takes all test examples once, each as the model of its own fold saw it, which is what
"correct of all" reports; `mean` and `std` are over the scores of the folds. results.json holds both and every fold.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from fer_jax.data.source import Source, load
from fer_jax.errors import UserError, first_line, writing
from fer_jax.evaluation.evaluate import score
from fer_jax.evaluation.report import Predictions, write_report
from fer_jax.training import finish, loop
from fer_jax.training.config import Config, assign, check_config
from fer_jax.training.protocol import ALL, fold_facts, protocol, selected_on, split_to_test
from fer_jax.training.setup import make_setup
from fer_jax.training.sharding import on_main
from fer_jax.training.step import Task
from fer_jax.training.workdir import (
    check_owner,
    claim,
    device_name,
    fold_folder,
    git_commit,
    stored_config,
    versions,
    with_stored_words,
    write_json,
)

OF_EACH = ("num_examples", "training_examples", "validation_examples", "steps", "params_sha256")


@dataclasses.dataclass(frozen=True)
class _Run:
    """A fold that was scored: its results, and the folder with them and its predictions."""

    results: Mapping[str, Any]
    folder: epath.Path


def is_sweep(workdir: epath.Path) -> bool:
    """Whether a work directory holds the runs of every fold."""
    return stored_config(workdir).fold == ALL


def train(config: Config, workdir: epath.Path) -> dict[str, Any]:
    """Trains every fold in turn under `workdir`, those that are finished left as they are, and scores them together.

    Returns:
        What it wrote to results.json.

    Raises:
        UserError: for bad input, before anything is written.
        Interrupted: after SIGTERM or Ctrl-C, with the fold that was being trained saved.
    """
    check_config(config)
    check_owner(workdir, config)
    finished = finish.say_finished(workdir)
    if finished is not None:
        return finished
    task, count = _common(config, workdir, training=True)
    with claim(workdir, config):
        runs = []
        for number in range(1, count + 1):
            folder = fold_folder(workdir, number)
            runs.append(_Run(loop.train(one_fold(config, number), folder), folder))
        return _write(config, task, runs, workdir, workdir / "results.json")


def evaluate(
    workdir: epath.Path,
    split: str = "",
    output: epath.Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Scores every fold's stored model on its own fold again, and all of them together.

    Args:
        workdir: of a run of every fold; nothing of it is changed.
        split: must be empty: one split for all models is no cross-validation.
        output: where the scores go; `workdir/evaluation/results.json` by default.
        changes: as in `finish.evaluate`.

    Raises:
        UserError: as `finish.evaluate`, and where a fold is not trained to its end.
    """
    if split:
        raise UserError(
            f"--split={split}: {workdir} holds a run for every fold; score one of them, for example "
            f"--workdir={fold_folder(workdir, 1)}"
        )
    finish.check_changes(changes or {})
    config = stored_config(workdir)
    config.train.platform, config.train.devices = "auto", 0
    for field, value in (changes or {}).items():
        assign(config, field, value)
    task, count = _common(config, workdir, training=False)
    folders = [fold_folder(workdir, number) for number in range(1, count + 1)]
    for number, folder in enumerate(folders, start=1):
        if not (folder / "results.json").exists():
            raise UserError(
                f"fold {number} of {count} is not trained to its end in {folder}: start the command that trains "
                f"{workdir} again, or score a fold that is finished"
            )
    target = output or workdir / "evaluation" / "results.json"
    with writing(target):
        on_main(lambda: [path.mkdir(parents=True, exist_ok=True) for path in (workdir / "evaluation", target.parent)])
    runs = []
    for folder in folders:
        results = finish.evaluate(folder, changes=changes)
        runs.append(_Run(results, finish.evaluation_folder(folder, results["split"])))
    return _write(config, task, runs, workdir / "evaluation", target)


def one_fold(config: Config, number: int) -> Config:
    """Returns the config of one fold of a run of every fold."""
    config = config.copy_and_resolve_references()
    config.fold = str(number)
    return config


def _common(config: Config, workdir: epath.Path, training: bool) -> tuple[Task, int]:
    """Returns what the folds have in common, their task and their number; refuses what the first fold would refuse."""
    config = with_stored_words(one_fold(config, 1), fold_folder(workdir, 1))
    setup = make_setup(config, training)
    return setup.task, setup.train.folds


def _write(config: Config, task: Task, runs: Sequence[_Run], folder: epath.Path, target: epath.Path) -> dict[str, Any]:
    """Scores all folds together; writes `target` and the report in `folder`."""
    results: dict[str, Any] = {}

    def write() -> None:
        source = by_fold(load(config.data, split_to_test(config), training=False), len(runs))
        outputs = _outputs(runs, source)
        results.update(_describe(config, task, runs, source, outputs, folder))
        with writing(f"the results under {folder}", "make room and start the same command again"):
            page = _report(config, results, source, outputs, folder)
            write_json(target, results)
        print(
            "\n".join(map(str, filter(None, (finish.headline(results), results["protocol"], target, page)))), flush=True
        )

    on_main(write)
    return results


def by_fold(source: Source, count: int) -> Source:
    """Returns all examples of a divided split, fold after fold: the order of the folds' predictions."""
    rows = np.concatenate([np.flatnonzero(source.arrays["fold"] == fold) for fold in range(count)])
    return dataclasses.replace(source.select(rows), split=f"{count} folds of {source.split}")


def _outputs(runs: Sequence[_Run], source: Source) -> dict[str, np.ndarray]:
    """Reads the predictions of every fold, one after the other, and sees to it that they are those of `source`."""
    parts = []
    for number, run in enumerate(runs):
        path = run.folder / finish.PREDICTIONS
        try:
            with path.open("rb") as file, np.load(file) as stored:
                part = dict(stored)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} cannot be read ({first_line(error)}): delete {run.folder} and start the same command again"
            ) from error
        if not np.array_equal(part.pop("row"), source.rows[source.arrays["fold"] == number]):
            raise UserError(
                f"{path} is about other examples than {source.name} now has in fold {number + 1}: the data set has "
                f"changed; delete {run.folder} and start the same command again"
            )
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _describe(
    config: Config,
    task: Task,
    runs: Sequence[_Run],
    source: Source,
    outputs: Mapping[str, np.ndarray],
    folder: epath.Path,
) -> dict[str, Any]:
    """Returns results.json of all folds; the scores at its top level are the pooled ones."""
    scores = score(outputs, source, bootstrap=config.evaluation.bootstrap, task=task)
    pooled = finish.main_scores(scores) | {"num_examples": scores["num_examples"]}
    if "confusion" in scores:
        pooled |= {"correct": int(np.trace(scores["confusion"])), "confusion": scores["confusion"]}
    of_each = [finish.main_scores(run.results) for run in runs]
    columns = {name: [scores[name] for scores in of_each] for name in of_each[0]}
    return {
        "experiment": config.experiment,
        "variant": config.variant,
        "method": config.method,
        **scores,
        "protocol": protocol(config, len(runs)),
        **fold_facts(config, len(runs)),
        "pooled": pooled,
        "mean": {name: statistics.mean(values) for name, values in columns.items()},
        "std": {name: statistics.stdev(values) for name, values in columns.items()},
        "folds": [
            {"fold": number, "folder": os.path.relpath(run.folder, folder)}
            | main
            | {name: run.results[name] for name in OF_EACH}
            | {"best_step": run.results["selection"]["best_step"]}
            for number, (run, main) in enumerate(zip(runs, of_each, strict=True), start=1)
        ],
        "selection": {"rule": config.selection.rule, "metric": config.selection.metric, "on": selected_on(config)},
        "seed": config.seed,
        "params": runs[0].results["params"],
        "wall_seconds": sum(run.results["wall_seconds"] for run in runs),
        "device": device_name(),
        "versions": versions(),
        "git_commit": git_commit(),
    }


def _report(
    config: Config, results: dict[str, Any], source: Source, outputs: Mapping[str, np.ndarray], folder: epath.Path
) -> epath.Path | None:
    if not config.evaluation.report:
        return None
    predictions = None
    if "measures" not in results:
        predictions = Predictions(logits=outputs["logits"], labels=source.arrays["label"], images=source.pictures())
    return write_report(
        folder / "report",
        results=results | {"config": config.to_dict()},
        history=[],
        predictions=predictions,
    )
