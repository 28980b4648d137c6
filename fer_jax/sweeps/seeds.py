"""Several seeds: runs that differ only in their seed, and the spread of their scores.

The scores in results.json are means over the seeds, and `interval` is Student's 95 % interval of the mean: with ever
more seeds on the same examples, the mean would lie in it 95 times in 100. Where a single run falls is told by `std`,
and what other test examples would do by `accuracy_interval` of each seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etils import epath

from fer_jax.config.fields import Config
from fer_jax.errors import UserError
from fer_jax.evaluation.metrics import mean_interval
from fer_jax.evaluation.results import main_scores
from fer_jax.runs.workdir import check_owner, stored_config
from fer_jax.sweeps.members import Member, spread

SAME = ("dataset", "split", "num_examples", "classes")  # if these differ, the seeds were scored on other examples
SHARED = (*SAME, "unit", "data_digest", "trained_on", "left_out", "measures", "frames", "protocol", "fold")
SHARED += ("label_noise", "class_vectors", "started_from", "steps", "epochs")
SHARED += ("training_examples", "validation_examples")


def grows(config: Config, workdir: epath.Path) -> bool:
    """Whether `workdir` holds the same sweep with fewer seeds, to which more are added.

    Raises:
        UserError: if it holds a sweep with fewer seeds that differs in something else.
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


def combine(members: Sequence[Member]) -> dict[str, Any]:
    """Returns the means of the scores, their intervals, and the facts that all seeds share.

    Raises:
        UserError: if the seeds were scored on different examples.
    """
    first = members[0]
    for member in members:
        for name in SAME:
            if member.results[name] != first.results[name]:
                raise UserError(
                    f"{member.folder} was scored on other examples than {first.folder} ({name} "
                    f"{member.results[name]}, there {first.results[name]}): the data set has changed; delete one of "
                    "them and start the command again"
                )
    means = spread(members)["mean"]
    of_each = [main_scores(member.results) for member in members]
    interval = {
        name: None if mean is None else mean_interval([scores[name] for scores in of_each])
        for name, mean in means.items()
    }
    shared = {name: first.results[name] for name in SHARED if name in first.results}
    return shared | means | {"interval": interval}
