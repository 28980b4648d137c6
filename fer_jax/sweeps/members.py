"""The runs that a sweep is made of, and what is said of several of them together."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from fer_jax.config.fields import Config
from fer_jax.config.protocol import selected_on
from fer_jax.runs.workdir import device_name, git_commit, versions


@dataclasses.dataclass(frozen=True)
class Member:
    """A run of a sweep: its name ('fold 3 of 10', 'seed 3'), its own config and its folder."""

    name: str
    config: Config
    folder: epath.Path


@dataclasses.dataclass(frozen=True)
class Run:
    """A member that was scored: its results, and the folder with them and their report."""

    results: Mapping[str, Any]
    folder: epath.Path


def spread(of_each: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Returns `mean` and `std` (of a sample) of each score over the members; None where a member has no such score."""
    columns = {name: [scores[name] for scores in of_each] for name in of_each[0]}
    return {
        "mean": {name: None if None in values else statistics.mean(values) for name, values in columns.items()},
        "std": {name: None if None in values else statistics.stdev(values) for name, values in columns.items()},
    }


def facts(config: Config, runs: Sequence[Run]) -> dict[str, Any]:
    """Returns what results.json says of a sweep besides its scores."""
    return {
        "selection": {"rule": config.selection.rule, "metric": config.selection.metric, "on": selected_on(config)},
        "seed": config.seed,
        "params": runs[0].results["params"],
        "wall_seconds": sum(run.results["wall_seconds"] for run in runs),
        "device": device_name(),
        "versions": versions(),
        "git_commit": git_commit(),
    }
