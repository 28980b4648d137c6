"""Cross-validation: every fold is trained and tested in turn, and all examples are scored together.

Papers report one of two numbers: `pooled`, the scores of all test examples, each predicted by the model of its fold
("correct of all"), and `mean`, over the scores of the folds. results.json holds both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.config.fields import Config
from fer_jax.config.protocol import fold_facts, protocol, split_to_test
from fer_jax.data.sources.source import Source, load
from fer_jax.errors import UserError
from fer_jax.evaluation.evaluate import score
from fer_jax.evaluation.results import main_scores
from fer_jax.evaluation.task import Task
from fer_jax.parsing import read_arrays
from fer_jax.report import Predictions
from fer_jax.runs.results import FOLD
from fer_jax.sweeps.members import Member


def combine(config: Config, task: Task, members: Sequence[Member]) -> tuple[dict[str, Any], Predictions | None]:
    """Returns the scores of all examples together, `pooled` again by itself, and predictions for the report."""
    source = by_fold(load(config.data, split_to_test(config), training=False), len(members))
    outputs = _outputs(members, source)
    scores = score(outputs, source, bootstrap=config.evaluation.bootstrap, task=task)
    pooled = main_scores(scores) | {"num_examples": scores["num_examples"]}
    if "confusion" in scores:
        pooled |= {"correct": int(np.trace(scores["confusion"])), "confusion": scores["confusion"]}
    scores |= {"data_digest": source.data_digest, "protocol": protocol(config, len(members)), "pooled": pooled}
    scores |= fold_facts(config, len(members))
    if "measures" in scores or not config.evaluation.report:
        return scores, None
    return scores, Predictions(logits=outputs["logits"], labels=source.arrays["label"], images=source.pictures())


def by_fold(source: Source, count: int) -> Source:
    """Returns all examples of a split in `count` folds, fold after fold."""
    rows = np.concatenate([np.flatnonzero(source.arrays["fold"] == fold) for fold in range(count)])
    return dataclasses.replace(source.select(rows), split=f"{count} folds of {source.split}")


def _outputs(members: Sequence[Member], source: Source) -> Mapping[str, np.ndarray]:
    """Reads the outputs of every fold, one after the other; raises UserError if they are not those of `source`."""
    parts = []
    for member in members:
        path = member.folder / FOLD
        again = f"delete {member.folder} and start the same command again"
        part = read_arrays(path, again)
        if not np.array_equal(part.pop("row"), source.rows[source.arrays["fold"] == member.number - 1]):
            raise UserError(
                f"{path} has other examples than {source.name} now has in fold {member.number}: the data set has "
                f"changed; {again}"
            )
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
