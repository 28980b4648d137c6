"""The one place that knows about Orbax: saves a point in training whole, and finds the newest undamaged one."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from etils import epath

from fer_jax.errors import UserError

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        state: everything the next step needs.
        best: variables of the best validation so far ({'params', 'collections'}).
        record: plain JSON values: what the loop must remember (best score, open log window, seconds trained).
    """

    state: PyTree
    best: PyTree
    record: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one work directory. A save is one atomic unit: state, best model and record together."""

    def __init__(self, folder: epath.Path, keep: int):
        for noisy in ("orbax", "absl"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        absl_logging.set_verbosity(absl_logging.ERROR)
        # Saving is not asynchronous: a run that says it saved has saved, and the step after a save may donate
        # the buffers that were saved.
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False, create=True)
        try:
            self._manager = ocp.CheckpointManager(folder, options=options)
        except OSError as error:
            raise UserError(f"cannot write checkpoints under {folder}: {error.strerror or error}") from error
        self.folder = folder

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        """Saves at `step`; does nothing where that step is saved already.

        Raises:
            UserError: if it could not be written (a full disk); earlier checkpoints stay as they were.
        """
        if step in self._manager.all_steps():
            return
        tree = {"state": checkpoint.state, "best": checkpoint.best}
        record = dict(checkpoint.record) | {"sha256": _digest(tree)}
        args = ocp.args.Composite(tree=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record))
        try:
            self._manager.save(step, args=args, force=True)
            self._manager.wait_until_finished()
        except Exception as error:
            raise UserError(
                f"could not write the checkpoint of step {step} under {self.folder} ({_first_line(error)}); "
                "make room and start the same command again: it goes on from the checkpoint before"
            ) from error

    def restore(self, like: PyTree, best_like: PyTree) -> tuple[Checkpoint | None, list[str]]:
        """Returns the newest checkpoint that is whole (None where there is none), and what was wrong with newer ones.

        Args:
            like: a state with the shapes, types and shardings to restore into.
            best_like: the same for the best variables.
        """
        problems: list[str] = []
        steps = sorted(self._manager.all_steps(), reverse=True)
        target = jax.tree.map(_abstract, {"state": like, "best": best_like})
        args = ocp.args.Composite(tree=ocp.args.StandardRestore(target), record=ocp.args.JsonRestore())
        for step in steps:
            try:
                restored: Any = self._manager.restore(step, args=args)
                record = dict(restored.record)
                if record.pop("sha256") != _digest(restored.tree):
                    raise ValueError("its contents do not match their checksum")
            except Exception as error:
                problems.append(f"checkpoint {step} under {self.folder} is damaged: {_first_line(error)}")
                continue
            if problems:  # else the damaged one would stand in the way when its step is saved again
                for damaged in (s for s in steps if s > step):
                    self._manager.delete(damaged)
            return Checkpoint(restored.tree["state"], restored.tree["best"], record), problems
        if problems:
            raise UserError(
                f"no checkpoint under {self.folder} is whole ({len(problems)} damaged; {problems[0]}); "
                "delete the work directory to start again"
            )
        return None, problems

    def close(self) -> None:
        self._manager.close()


def _digest(tree: PyTree) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(jax.device_get(leaf)).tobytes())
    return digest.hexdigest()


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200] if text else 'no message'}"
