"""Cross-validation as a sweep: every fold is trained and tested in turn, and all examples are scored together.

Two numbers are in use. `pooled` takes all test examples once, each as the model of its own fold saw it, which is what
"correct of all" reports; `mean` and `std` are over the scores of the folds. results.json holds both and every fold.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from fer_jax.config.fields import Config
from fer_jax.config.protocol import fold_facts, protocol, split_to_test
from fer_jax.data.sources.source import Source, load
from fer_jax.errors import UserError, first_line
from fer_jax.evaluation.evaluate import score
from fer_jax.evaluation.results import main_scores
from fer_jax.report import Predictions
from fer_jax.runs.results import FOLD
from fer_jax.runs.workdir import fold_folder
from fer_jax.sweeps.members import Member, Run, facts, spread
from fer_jax.training.setup import Setup

NAME = "fold"
OF_EACH = ("num_examples", "training_examples", "validation_examples", "steps", "params_sha256")


def first(config: Config, workdir: epath.Path) -> Member:
    """Returns the first fold, whose setup says how many there are."""
    return _member(config, workdir, 1, "fold 1")


def members(config: Config, workdir: epath.Path, setup: Setup) -> list[Member]:
    """Returns all folds, in order."""
    count = setup.train.folds
    return [_member(config, workdir, number, f"fold {number} of {count}") for number in range(1, count + 1)]


def check_split(config: Config, workdir: epath.Path, split: str) -> None:
    """Refuses to score a split: one split for all models is no cross-validation."""
    if split:
        raise UserError(
            f"{workdir} holds a run for every fold, and they cannot be scored together on '{split}': score one of "
            f"them, for example --workdir={fold_folder(workdir, 1)}"
        )


def together(
    config: Config, setup: Setup, runs: Sequence[Run], folder: epath.Path
) -> tuple[dict[str, Any], Predictions | None]:
    """Scores all folds together.

    Returns:
        results.json, whose scores at the top level are the pooled ones, and what the report shows of the predictions.
    """
    source = by_fold(load(config.data, split_to_test(config), training=False), len(runs))
    outputs = _outputs(runs, source)
    scores = score(outputs, source, bootstrap=config.evaluation.bootstrap, task=setup.task)
    pooled = main_scores(scores) | {"num_examples": scores["num_examples"]}
    if "confusion" in scores:
        pooled |= {"correct": int(np.trace(scores["confusion"])), "confusion": scores["confusion"]}
    of_each = [main_scores(run.results) for run in runs]
    results = {
        "experiment": config.experiment,
        "variant": config.variant,
        "method": config.method,
        **scores,
        "data_digest": source.data_digest,
        "protocol": protocol(config, len(runs)),
        **fold_facts(config, len(runs)),
        "pooled": pooled,
        **spread(of_each),
        "folds": [
            {"fold": number, "folder": os.path.relpath(run.folder, folder)}
            | main
            | {name: run.results[name] for name in OF_EACH}
            | {"best_step": run.results["selection"]["best_step"]}
            for number, (run, main) in enumerate(zip(runs, of_each, strict=True), start=1)
        ],
        **facts(config, runs),
    }
    predictions = None
    if config.evaluation.report and "measures" not in results:
        predictions = Predictions(logits=outputs["logits"], labels=source.arrays["label"], images=source.pictures())
    return results, predictions


def by_fold(source: Source, count: int) -> Source:
    """Returns all examples of a divided split, fold after fold: the order of the folds' predictions."""
    rows = np.concatenate([np.flatnonzero(source.arrays["fold"] == fold) for fold in range(count)])
    return dataclasses.replace(source.select(rows), split=f"{count} folds of {source.split}")


def _member(config: Config, workdir: epath.Path, number: int, name: str) -> Member:
    config = config.copy_and_resolve_references()
    config.fold = str(number)
    return Member(name, config, fold_folder(workdir, number))


def _outputs(runs: Sequence[Run], source: Source) -> Mapping[str, np.ndarray]:
    """Reads the predictions of every fold, one after the other, and sees to it that they are those of `source`."""
    parts = []
    for number, run in enumerate(runs):
        path = run.folder / FOLD
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
