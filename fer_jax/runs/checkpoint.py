"""The one place that knows about Orbax: writes checkpoints, and restores the newest undamaged one.

A checkpoint is a folder named after its step: the arrays in `tree/`, as Orbax writes them, and `manifest.json` with the
record of the run and a list of the files with sizes and checksums. The manifest is written last: without it a
checkpoint does not count. Its list decides whether a checkpoint is damaged, before anything reads it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from fer_jax.engine.hosts import agree
from fer_jax.engine.mesh import any_process, is_main, on_main
from fer_jax.errors import UserError, first_line, reading, writing
from fer_jax.parsing import parse_json, whole_number
from fer_jax.storage import expect_folder, sync_all, write_whole

PyTree = Any
Record = Mapping[str, Any]  # plain JSON values
MANIFEST, TREE = "manifest.json", "tree"
FORMAT = 2  # of the manifest and its record
ARRAYS = "tree/manifest.ocdbt"  # without this file of Orbax no array is found


def save(folder: epath.Path, step: int, tree: PyTree, record: Record, keep: int) -> None:
    """Writes the checkpoint of `step`, unless it exists; then deletes all but the newest ones.

    Args:
        folder: of all checkpoints; created if missing.
        step: optimizer steps made.
        tree: of arrays.
        record: kept with them.
        keep: how many checkpoints are left.

    Raises:
        UserError: if it cannot be written (a full disk); earlier checkpoints stay as they are.
    """
    if any_process(is_main() and step in _steps(folder)):  # the listings of other hosts may be old
        return
    place = folder / str(step)
    try:
        on_main(lambda: _delete_unfinished(folder))
        _orbax().save(place / TREE, args=ocp.args.StandardSave(tree))
        on_main(lambda: _write_manifest(place, record))
    except Exception as error:
        if is_main():  # without waiting for the others, which may not have failed
            with contextlib.suppress(Exception):  # the next save tries again
                _delete_unfinished(folder)
        raise UserError(
            f"could not write the checkpoint of step {step} under {folder} ({first_line(error)}); "
            "make room and start the same command again: it resumes from the checkpoint before"
        ) from error
    on_main(lambda: _delete(folder, _steps(folder)[:-keep]))


def restore(
    folder: epath.Path, like: PyTree, check: Callable[[Record], None] = lambda record: None
) -> tuple[PyTree, Record, list[str]] | None:
    """Returns the tree and record of the newest undamaged checkpoint, and what is wrong with newer ones.

    Args:
        folder: of all checkpoints.
        like: a tree of arrays or `jax.ShapeDtypeStruct`, with the shapes, types and shardings to restore into.
        check: is given the record before the arrays are read, and may refuse it.

    Returns:
        None if there is no checkpoint.

    Raises:
        UserError: if every checkpoint is damaged, one cannot be read or is of another version, or the newest undamaged
            one does not fit this program.
    """
    step, damaged = _newest_whole(folder)
    agree("newest checkpoint", {"step": step}, "all hosts must see the same files: start it again")
    if step is None:
        return None
    record = parse_json((folder / str(step) / MANIFEST).read_bytes())["record"]
    check(record)
    try:
        tree = _orbax().restore(folder / str(step) / TREE, args=ocp.args.StandardRestore(like))
    except Exception as error:
        raise UserError(
            f"checkpoint {step} under {folder} is undamaged but does not fit this program "
            f"({first_line(error)}): another version wrote it; give another --workdir"
        ) from error
    on_main(lambda: _delete(folder, damaged))  # the same step will be saved again
    return tree, record, list(damaged.values())


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
    return bool(_steps(folder))


@functools.cache
def _orbax() -> ocp.Checkpointer:
    """Returns what reads and writes trees. Not asynchronous: the step after a save donates the buffers it saved."""
    logging.set_verbosity(logging.FATAL)  # its threads log the stack trace of what is raised as well
    return ocp.Checkpointer(ocp.StandardCheckpointHandler())


def _steps(folder: epath.Path) -> list[int]:
    """Returns the steps of the checkpoints that have a manifest, in order."""
    with reading(folder):
        places = list(folder.iterdir()) if folder.exists() else []
        steps = ((whole_number(place.name), place) for place in places)
        return sorted(step for step, place in steps if step is not None and (place / MANIFEST).exists())


def _delete(folder: epath.Path, steps: Iterable[int]) -> None:
    with writing(folder, "check the permissions of its files"):
        for step in steps:
            (folder / str(step) / MANIFEST).unlink(missing_ok=True)  # first: what a kill leaves does not count
            (folder / str(step)).rmtree()


def _delete_unfinished(folder: epath.Path) -> None:
    """Deletes what a kill or a full disk left of a save."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in folder.iterdir():
        if place.is_dir() and not (place / MANIFEST).exists():
            place.rmtree()


def _newest_whole(folder: epath.Path) -> tuple[int | None, dict[int, str]]:
    """Returns the newest undamaged step (None if there is no checkpoint), and what is wrong with newer ones."""
    damaged: dict[int, str] = {}
    for step in reversed(_steps(folder)):
        fault = _fault(folder / str(step))
        if not fault:
            return step, damaged
        damaged[step] = f"checkpoint {step} under {folder} is damaged: {fault}"
    if damaged:
        raise UserError(
            f"every checkpoint under {folder} is damaged ({len(damaged)}; {next(iter(damaged.values()))}); "
            f"delete the work directory {folder.parent} to start again"
        )
    return None, damaged


def _write_manifest(place: epath.Path, record: Record) -> None:
    if not (place / ARRAYS).exists():
        raise OSError(f"Orbax has not written {ARRAYS}")
    files = {
        str(path.relative_to(place)): {"bytes": path.stat().length, "sha256": _sha256(path)} for path in _files(place)
    }
    sync_all(place)
    write_whole(place / MANIFEST, json.dumps({"format": FORMAT, "record": record, "files": files}, indent=1) + "\n")


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _fault(place: epath.Path) -> str:
    """Returns what is wrong with the files of a checkpoint; '' if all are as they were written.

    Raises:
        UserError: if they cannot be read now, or another version wrote them: neither is damage.
    """
    with reading(place):
        try:
            return _fault_in(place, parse_json((place / MANIFEST).read_bytes()))
        except FileNotFoundError as error:
            return f"{error.filename or error} is missing"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return first_line(error)


def _fault_in(place: epath.Path, manifest: Any) -> str:
    if isinstance(manifest, dict) and manifest and manifest.get("format") != FORMAT:
        raise UserError(f"checkpoint {place} was written by another version of fer_jax: read it with that one")
    if not (manifest["files"] and isinstance(manifest["record"], dict)):
        return f"{MANIFEST} lists no files or has no record"
    for name, expected in manifest["files"].items():
        path = place / name
        if (size := path.stat().length) != expected["bytes"]:
            return f"{name} has {size} bytes, not {expected['bytes']}"
        if _sha256(path) != expected["sha256"]:
            return f"the contents of {name} do not match their checksum"
    return ""


def _sha256(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore
