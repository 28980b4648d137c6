"""Several seeds as a sweep: independent runs that differ in nothing but their seed, and the spread of their scores.

results.json holds every seed, and `mean`, `std` and `interval` of each score over the seeds; the scores at its top
level are the means. `interval` is Student's 95 % interval of the mean: if the same recipe were trained with ever more
seeds, on the same training examples and tested on the same test examples, the mean would be in there 95 times in 100.
So it is neither where a single run falls (that is `std`) nor what other test examples would do (that is each seed's
own `accuracy_interval`, in its folder).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from etils import epath

from fer_jax.config.fields import Config
from fer_jax.config.protocol import ALL
from fer_jax.errors import UserError
from fer_jax.evaluation.metrics import mean_interval
from fer_jax.evaluation.results import main_scores
from fer_jax.report import Predictions
from fer_jax.runs.workdir import check_owner, seed_folder, stored_config
from fer_jax.sweeps import sweep_folds
from fer_jax.sweeps.members import Member, Run, facts, spread
from fer_jax.training.setup import Setup

NAME = "seed"
SAME = ("dataset", "split", "num_examples", "classes")  # of the examples that all seeds are scored on
SHARED = (*SAME, "unit", "data_digest", "trained_on", "left_out", "measures", "frames", "protocol", "fold")
SHARED += (
    "label_noise",
    "class_vectors",
    "started_from",
    "steps",
    "epochs",
    "training_examples",
    "validation_examples",
)
OF_EACH = ("params_sha256", "steps", "wall_seconds", "training_seconds", "images_per_second")


def grows(config: Config, workdir: epath.Path) -> bool:
    """Whether `workdir` holds the same sweep of fewer seeds, to which the others are added.

    Raises:
        UserError: if it holds a sweep of fewer seeds that differs in more than their number.
    """
    if not (workdir / "config.json").exists():
        return False
    there = stored_config(workdir).seeds
    if not 1 < there < config.seeds:
        return False
    fewer = config.copy_and_resolve_references()
    fewer.seeds = there
    check_owner(workdir, fewer)
    return True


def first(config: Config, workdir: epath.Path) -> Member:
    """Returns the run of the first seed."""
    return _member(config, workdir, config.seed)


def members(config: Config, workdir: epath.Path, setup: Setup) -> list[Member]:
    """Returns the runs of all seeds, in order."""
    return [_member(config, workdir, config.seed + place) for place in range(config.seeds)]


def check_split(config: Config, workdir: epath.Path, split: str) -> None:
    """Any split will do, for the seeds are trained on the same examples, unless each trains every fold."""
    if config.fold == ALL:
        sweep_folds.check_split(config, seed_folder(workdir, config.seed), split)


def together(
    config: Config, setup: Setup, runs: Sequence[Run], folder: epath.Path
) -> tuple[dict[str, Any], Predictions | None]:
    """Returns results.json of all seeds; there are no predictions to show, each seed has its own.

    Raises:
        UserError: if the seeds were scored on different examples.
    """
    origin = runs[0].results
    for run in runs:
        for name in SAME:
            if run.results[name] != origin[name]:
                raise UserError(
                    f"{run.folder} was scored on other examples than {runs[0].folder} ({name} {run.results[name]}, "
                    f"there {origin[name]}): the data set has changed; delete one of them and start the command again"
                )
    of_each = [main_scores(run.results) for run in runs]
    over = spread(of_each)
    results = {
        "experiment": config.experiment,
        "variant": config.variant,
        "method": config.method,
        **{name: origin[name] for name in SHARED if name in origin},
        **over["mean"],
        **over,
        "interval": {
            name: None if mean is None else mean_interval([scores[name] for scores in of_each])
            for name, mean in over["mean"].items()
        },
        "seeds": [
            {"seed": config.seed + place, "folder": os.path.relpath(run.folder, folder)}
            | main
            | {name: run.results[name] for name in OF_EACH if name in run.results}
            | ({"best_step": run.results["selection"]["best_step"]} if "best_step" in run.results["selection"] else {})
            for place, (run, main) in enumerate(zip(runs, of_each, strict=True))
        ],
        **facts(config, runs),
    }
    return results, None


def _member(config: Config, workdir: epath.Path, seed: int) -> Member:
    """The run of one seed, with the config that it has when it is trained alone."""
    config = config.copy_and_resolve_references()
    config.seed, config.seeds = seed, 1
    return Member(f"seed {seed}", config, seed_folder(workdir, seed))
