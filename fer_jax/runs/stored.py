"""A trained model read back from its work directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from fer_jax.config.fields import assign
from fer_jax.data.sources.source import Source
from fer_jax.errors import UserError
from fer_jax.evaluation.evaluate import Evaluator, Outputs
from fer_jax.runs.checkpoint import Checkpoints
from fer_jax.runs.workdir import stored_run
from fer_jax.storage import absolute
from fer_jax.training.setup import Setup, make_setup
from fer_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """The selected model of a run.

    Attributes:
        setup: its config, data and task.
        variables: of the selected model.
        state: of the newest checkpoint.
        record: what the loop remembered there (best scores, seconds trained).
    """

    setup: Setup
    variables: dict[str, Any]
    state: TrainState
    record: Mapping[str, Any]

    def outputs(self, source: Source, names: Sequence[str] = (), variables: Any = None) -> Outputs:
        """Returns `logits` [N, C] and the named intermediates [N, ...] for all examples of `source`.

        Other `variables` than the selected model's may be given, such as those of an untrained one.
        """
        task = dataclasses.replace(self.setup.task, profiles=tuple(names))
        evaluator = Evaluator(task, self.setup.mesh, self.setup.config.evaluation.batch_size)
        return evaluator(self.variables if variables is None else variables, source)


def check_classes(record: Mapping[str, Any], classes: Sequence[str], where: Any) -> None:
    """Refuses a model whose outputs have other names than the classes of the data set, such as one prepared anew."""
    trained = record.get("classes") or list(classes)
    if list(trained) != list(classes):
        raise UserError(
            f"{where} was trained on the classes {', '.join(trained)}, and the data set has {', '.join(classes)}: "
            "prepare again the data set that it was trained on, or train anew"
        )


def read_model(workdir: epath.Path, changes: Mapping[str, Any] | None = None) -> StoredModel:
    """Reads the selected model of `workdir`, for any devices there are; nothing is written.

    Args:
        workdir: of a run.
        changes: fields of its config to read differently, by path.

    Raises:
        UserError: where nothing is stored, or it is damaged.
    """
    config = stored_run(workdir)
    config.train.platform, config.train.devices = "auto", 0
    with config.unlocked():  # a field that this method's model lacks is refused with the others
        for field, value in (changes or {}).items():
            assign(config, field, value)
    setup = make_setup(config, training=False)
    like = setup.abstract_state()
    best_like = {"params": like.params, "collections": like.collections}
    checkpoints = Checkpoints(absolute(workdir / "checkpoints"), config.train.keep_checkpoints, read_only=True)
    stored, problems = checkpoints.restore(like, best_like)
    for problem in problems:
        print(f"warning: {problem}; the one before is used", flush=True)
    if stored is None:
        raise UserError(f"{workdir} holds no checkpoint yet: train it first")
    check_classes(stored.record, setup.train.classes, workdir)
    variables = {"params": stored.best["params"], **stored.best["collections"]}
    return StoredModel(setup, variables, stored.state, stored.record)
