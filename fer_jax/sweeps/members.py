"""The runs of a sweep, and what a sweep reports of all of them."""

from __future__ import annotations

import dataclasses
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from fer_jax.config.fields import Config
from fer_jax.config.protocol import ALL, selected_on
from fer_jax.evaluation.results import main_scores
from fer_jax.runs.results import with_origin
from fer_jax.runs.workdir import fold_folder, seed_folder

# Fields that a sweep repeats of each run, if it has them.
OF_EACH = ("num_examples", "training_examples", "validation_examples", "steps", "params_sha256")
OF_EACH += ("wall_seconds", "training_seconds", "images_per_second")


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
        number: of its fold, from 1, or its seed.
        name: for messages, such as 'fold 3 of 10'.
        config: the one that it has when it is trained alone.
        folder: its work directory, or the folder that it was scored into.
        results: its results.json; empty until it is scored.
    """

    number: int
    name: str
    config: Config
    folder: epath.Path
    results: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def sweeps_over(config: Config) -> str:
    """Returns 'seed' or 'fold'; '' for a single run. A sweep over both is one of seeds, each a sweep of folds."""
    return "seed" if config.seeds != 1 else "fold" if config.fold == ALL else ""


def members(config: Config, workdir: epath.Path, count: int) -> list[Member]:
    """Returns the first `count` runs of the sweep of `config` in `workdir`."""
    kind, found = sweeps_over(config), []
    for place in range(count):
        own = config.copy_and_resolve_references()
        if kind == "seed":
            own.seed, own.seeds = config.seed + place, 1
            found.append(Member(own.seed, f"seed {own.seed}", own, seed_folder(workdir, own.seed)))
        else:
            own.fold = str(place + 1)
            found.append(Member(place + 1, f"fold {own.fold} of {count}", own, fold_folder(workdir, own.fold)))
    return found


def spread(members: Sequence[Member]) -> dict[str, dict[str, float | None]]:
    """Returns `mean` and `std` (of a sample) of each score over the members; None if a member lacks it."""
    of_each = [main_scores(member.results) for member in members]
    columns = {name: [scores[name] for scores in of_each] for name in of_each[0]}
    return {
        "mean": {name: None if None in values else statistics.mean(values) for name, values in columns.items()},
        "std": {name: None if None in values else statistics.stdev(values) for name, values in columns.items()},
    }


def summary(config: Config, members: Sequence[Member], scores: Mapping[str, Any], folder: epath.Path) -> dict[str, Any]:
    """Returns results.json of a sweep in `folder`: its `scores`, their spread, each member, and their origin."""
    kind, rows = sweeps_over(config), []
    for member in members:
        row = {kind: member.number, "folder": os.path.relpath(member.folder, folder)}
        row |= main_scores(member.results)
        row |= {name: member.results[name] for name in OF_EACH if name in member.results}
        selection = member.results["selection"]
        rows.append(row | ({"best_step": selection["best_step"]} if "best_step" in selection else {}))
    facts = {
        f"{kind}s": rows,
        "selection": {"rule": config.selection.rule, "metric": config.selection.metric, "on": selected_on(config)},
        "seed": config.seed,
        "params": members[0].results["params"],
        "wall_seconds": sum(member.results["wall_seconds"] for member in members),
    }
    return with_origin({**scores, **spread(members), **facts}, config)
