"""The one place that knows about Orbax: writes checkpoints, and restores the newest undamaged one.

A checkpoint counts once its manifest exists: a list of its files with sizes and checksums, written last. The list
decides whether a checkpoint is damaged, before anything reads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from etils import epath

from fer_jax.engine.mesh import on_main
from fer_jax.errors import UserError, first_line, reading, writing
from fer_jax.parsing import parse_json
from fer_jax.storage import expect_folder, in_bucket, write_whole

PyTree = Any
MANIFEST = "manifest.json"
ARRAYS = "tree/manifest.ocdbt"  # without this file of Orbax no array is found


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        state: everything the next step needs.
        best: variables of the best evaluation so far ({'params', 'collections'}).
        record: plain JSON values (best scores, open log window, seconds trained).
    """

    state: PyTree
    best: PyTree
    record: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one work directory. Each is written whole: state, best model and record together.

    Attributes:
        folder: where they are.
        keep: how many of the newest are kept.
    """

    def __init__(self, folder: epath.Path, keep: int):
        for noisy in ("orbax", "absl"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        absl_logging.set_verbosity(absl_logging.ERROR)
        self.folder, self.keep = folder, keep
        # Not asynchronous: the step after a save donates the buffers that were saved. Old checkpoints are deleted here,
        # after the manifest of the new one is written, and not by Orbax.
        options = ocp.CheckpointManagerOptions(max_to_keep=None, enable_async_checkpointing=False, create=True)
        expect_folder(folder)
        try:
            self._manager = ocp.CheckpointManager(folder, options=options)
        except OSError as error:
            raise UserError(f"cannot write checkpoints under {folder}: {error.strerror or error}") from error

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        """Writes the checkpoint of `step`, unless it exists.

        Raises:
            UserError: if it cannot be written (a full disk); earlier checkpoints stay as they are.
        """
        if step in self._steps():
            return
        tree = {"state": checkpoint.state, "best": checkpoint.best}
        args = ocp.args.Composite(tree=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(dict(checkpoint.record)))
        try:
            if step in self._manager.all_steps():  # a kill left it without a manifest
                self._manager.delete(step)
            on_main(lambda: _check_room(self.folder, tree))
            self._manager.save(step, args=args, force=True)
            self._manager.wait_until_finished()
            on_main(lambda: _write_manifest(self.folder / str(step)))
        except Exception as error:
            on_main(lambda: _remove_unfinished(self.folder))
            raise UserError(
                f"could not write the checkpoint of step {step} under {self.folder} ({first_line(error)}); "
                "make room and start the same command again: it resumes from the checkpoint before"
            ) from error
        self._delete(self._steps()[: -self.keep])

    def restore(
        self, like: PyTree, best_like: PyTree, check: Callable[[Mapping[str, Any]], None] = lambda record: None
    ) -> tuple[Checkpoint | None, list[str]]:
        """Returns the newest undamaged checkpoint (None if there is none), and what is wrong with newer ones.

        Args:
            like: a state with the shapes, types and shardings to restore into.
            best_like: the same for the best variables.
            check: is given the record before the arrays are read, and may refuse it.

        Raises:
            UserError: if every checkpoint is damaged, or the newest undamaged one does not fit this program.
        """
        step, damaged = self._newest_whole()
        if step is None:
            return None, []
        record = self._read(step, record=ocp.args.JsonRestore()).record
        check(record)
        abstract = jax.tree.map(_abstract, {"state": like, "best": best_like})
        tree = self._read(step, tree=ocp.args.StandardRestore(abstract)).tree
        self._delete(damaged)  # the same step will be saved again
        return Checkpoint(tree["state"], tree["best"], record), list(damaged.values())

    def close(self) -> None:
        self._manager.close()

    def _delete(self, steps: Iterable[int]) -> None:
        with writing(self.folder, "check the permissions of its files"):
            for step in steps:
                self._manager.delete(step)

    def _steps(self) -> list[int]:
        """Returns the steps of the checkpoints that have a manifest, in order."""
        return sorted(s for s in self._manager.all_steps() if (self.folder / str(s) / MANIFEST).exists())

    def _newest_whole(self) -> tuple[int | None, dict[int, str]]:
        """Returns the newest undamaged step (None if there is no checkpoint), and what is wrong with newer ones."""
        damaged: dict[int, str] = {}
        for step in reversed(self._steps()):
            fault = _fault(self.folder / str(step))
            if not fault:
                return step, damaged
            damaged[step] = f"checkpoint {step} under {self.folder} is damaged: {fault}"
        if damaged:
            raise UserError(
                f"every checkpoint under {self.folder} is damaged ({len(damaged)}; {next(iter(damaged.values()))}); "
                f"delete the work directory {self.folder.parent} to start again"
            )
        return None, damaged

    def _read(self, step: int, **parts: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**parts))
        except Exception as error:
            raise UserError(
                f"checkpoint {step} under {self.folder} is undamaged but does not fit this program "
                f"({first_line(error)}): another version wrote it; give another --workdir"
            ) from error


def tree_sha256(*trees: PyTree) -> str:
    """Returns the SHA-256 over all leaves in path order, as float32 little-endian bytes."""
    digest = hashlib.sha256()
    for tree in trees:
        flat = flax.traverse_util.flatten_dict(tree, sep="/")
        for path in sorted(flat):
            digest.update(np.ascontiguousarray(jax.device_get(flat[path]), dtype="<f4").tobytes())
    return digest.hexdigest()


def has_checkpoint(folder: epath.Path) -> bool:
    """Whether there is a complete checkpoint under `folder`.

    Raises:
        UserError: if the folder cannot be read, or is a file.
    """
    expect_folder(folder)
    with reading(folder):
        return folder.exists() and any((step / MANIFEST).exists() for step in folder.iterdir() if step.is_dir())


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        elif not path.name.startswith(MANIFEST):
            yield path


def _write_manifest(folder: epath.Path) -> None:
    if not (folder / ARRAYS).exists():
        raise OSError(f"Orbax has not written {ARRAYS}")
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().length, "sha256": _sha256(path)} for path in _files(folder)
    }
    write_whole(folder / MANIFEST, json.dumps(files, indent=1) + "\n")


def _fault(folder: epath.Path) -> str:
    """Returns what is wrong with the files of a checkpoint; '' if all are as they were written."""
    try:
        listed = parse_json((folder / MANIFEST).read_bytes())
        if not listed:
            return f"{MANIFEST} lists no files"
        for name, expected in listed.items():
            path = folder / name
            if not path.exists():
                return f"{name} is missing"
            if path.stat().length != expected["bytes"]:
                return f"{name} has {path.stat().length} bytes, not {expected['bytes']}"
            if _sha256(path) != expected["sha256"]:
                return f"the contents of {name} do not match their checksum"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return first_line(error)
    return ""


def _sha256(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore


def _check_room(folder: epath.Path, tree: PyTree) -> None:
    """Raises OSError if the disk has no room: a write that fails halfway makes Orbax log a stack trace."""
    if in_bucket(folder):
        return
    needed, free = sum(leaf.nbytes for leaf in jax.tree.leaves(tree)), shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"No space left on device: it needs {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free")


def _remove_unfinished(folder: epath.Path) -> None:
    for path in folder.iterdir():
        if "orbax-checkpoint-tmp" in path.name:
            path.rmtree()


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
