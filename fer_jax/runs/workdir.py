"""A run's folder: who owns it, and the files that describe the run."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
from etils import epath

from fer_jax import __version__, methods
from fer_jax.config.fields import Config, default_config
from fer_jax.config.protocol import ALL
from fer_jax.engine.hosts import agree
from fer_jax.engine.mesh import on_main, told_by_main
from fer_jax.errors import UserError, differences, reading, writing
from fer_jax.locks import alone
from fer_jax.runs.checkpoint import holds_a_save
from fer_jax.storage import expect_folder, write_whole

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")
SHOWN_DIFFERENCES = 6
NETWORK_SECONDS = 15.0  # until a file of another host is seen on a network's file system
# Any finished run has them, and what is said of several is made of them.
FACTS = ("dataset", "split", "num_examples", "classes", "selection", "params", "wall_seconds")
REJOIN = "delete config.json and results.json there and start the command that trains it again: nothing is trained anew"
SCORES = ("accuracy", "mean_recall", "macro_f1")  # and these, unless it has measures of its own


def default_workdir(config: Config) -> epath.Path:
    """Returns runs/<experiment>/<variant>, of several seeds <variant>_seeds; of a single fold its folder under that.

    So a fold has the folder that it has when every fold is trained.
    """
    several = "_seeds" if config.get("seeds", 1) != 1 else ""
    folder = epath.Path("runs") / config.experiment / f"{config.variant}{several}"
    fold = config.get("fold", "")
    return folder if fold in ("", ALL) else fold_folder(folder, fold)


def fold_folder(workdir: epath.Path, number: int | str) -> epath.Path:
    """Returns the folder of a fold, counted from 1, in that of all of them."""
    return workdir / f"fold{number:0>2}"


def seed_folder(workdir: epath.Path, seed: int) -> epath.Path:
    """Returns the folder of a seed in that of all of them."""
    return workdir / f"seed{seed:02}"


def check_owner(workdir: epath.Path, config: Config) -> None:
    """Refuses a folder that belongs to a run with another config, naming the fields that differ.

    A run that ended before its first save has left nothing to go on from: its folder is anyone's.
    """
    path = workdir / "config.json"
    for folder in (workdir, workdir / "report"):
        expect_folder(folder)
    if not path.exists():
        if _has_saved(workdir):
            if _is_sweep(workdir):
                raise UserError(f"{workdir} holds the results of several runs without their config.json: {REJOIN}")
            raise UserError(f"{workdir} holds a run without its config.json: put it back, or give another --workdir")
        return
    changed = _changes(path, config)
    if changed and _holds_a_run(workdir):
        shown = "; ".join(changed[:SHOWN_DIFFERENCES])
        more = f"; and {len(changed) - SHOWN_DIFFERENCES} more" if len(changed) > SHOWN_DIFFERENCES else ""
        raise UserError(
            f"work directory {workdir} belongs to another config ({shown}{more}): "
            "give another --workdir, or delete that one"
        )


@contextlib.contextmanager
def claim(
    workdir: epath.Path,
    config: Config,
    files: Mapping[str, Any] | None = None,
    started_from: Mapping[str, Any] | None = None,
    anew: bool = False,
) -> Iterator[None]:
    """Makes the folder this run's own inside the `with` block: writes config.json where that of the run is missing.

    Args:
        workdir: the folder.
        config: the run's.
        files: JSON values to keep with the run by file name, whose source it does not need again once it has saved.
        started_from: the account of the weights that a run starts from at step 0, kept in config.json as well.
        anew: whether the folder takes another config than the one it had: what was the end of that is no end of this.

    Raises:
        UserError: if the folder cannot be written or is another run's by now, or another process is at work in it.
    """
    lock = contextlib.ExitStack()

    def write() -> None:
        path = workdir / "config.json"
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            for folder in (workdir, workdir / "checkpoints"):
                if path.exists() and folder.exists():
                    (folder / ".writable").touch()  # a resumed run learns here, not in an hour, that it cannot save
                    (folder / ".writable").unlink(missing_ok=True)  # another process that starts may have been quicker
            busy = f"another process is at work in {workdir}: wait for it, or give another --workdir"
            lock.enter_context(alone(workdir / ".lock", busy))
            if anew:
                (workdir / "results.json").unlink(missing_ok=True)
            else:
                check_owner(workdir, config)  # again: somebody may have been at work here until now
            # A run that never saved may find other weights the next time, or be another.
            if anew or not path.exists() or started_from or _changes(path, config):
                ours = json.loads(config.to_json())
                origin = {"started_from": started_from} if started_from else {}
                write_json(path, {"config": ours, "versions": versions(), "git_commit": git_commit()} | origin)
            for name, values in (files or {}).items():
                if not (_has_saved(workdir) and (workdir / name).exists()):
                    write_json(workdir / name, values, indent=None)
        except OSError as error:
            raise UserError(
                f"cannot write the work directory {workdir}: {error.strerror or error}; give another with --workdir"
            ) from error

    with lock:
        on_main(write)
        _check_shared(workdir)
        yield


def _check_shared(workdir: epath.Path) -> None:
    """Refuses a work directory that lies on the first host alone: all of them read checkpoints.

    Each host may have an old folder of the same name: only what process 0 has just written there tells them apart.
    """
    if jax.process_count() == 1:
        return
    path, token = workdir / ".shared", told_by_main(uuid.uuid4().bytes).hex()
    with writing(path):
        on_main(lambda: path.write_text(token))

    def is_there() -> bool:
        with contextlib.suppress(OSError):  # not yet
            return path.read_text() == token
        return False

    end = time.monotonic() + NETWORK_SECONDS
    while not (there := is_there()) and time.monotonic() < end:
        time.sleep(0.2)
    agree("work directory", {"shared": there}, f"{workdir} must be one that all hosts share, or a bucket")
    on_main(lambda: path.unlink(missing_ok=True))


def stored_config(workdir: epath.Path) -> Config:
    """Returns the config that a work directory was trained with."""
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"{workdir} is no work directory of a run: it has no config.json")
    stored = _read_config(path)
    config = default_config("", "", stored["method"])
    with config.unlocked():
        _assign(config, stored)
    return with_kept_files(config, workdir)


def stored_run(workdir: epath.Path) -> Config:
    """Returns the config of a work directory that holds a model, which one of several runs does not."""
    config = stored_config(workdir)
    if config.seeds > 1:
        raise UserError(
            f"{workdir} holds a run for each of {config.seeds} seeds: give one of them, for example "
            f"{seed_folder(workdir, config.seed)}"
        )
    if config.fold == ALL:
        raise UserError(
            f"{workdir} holds a run for every fold: give one of them, for example {fold_folder(workdir, 1)}"
        )
    return config


def with_kept_files(config: Config, workdir: epath.Path) -> Config:
    """Returns the config of a run whose model fields name the files kept with it in place of their first source.

    Files of a run that has not saved a checkpoint may belong to another config.
    """
    kept = {field: workdir / name for field, name in methods.load(config.method).kept.items()}
    config = config.copy_and_resolve_references()
    for field, path in kept.items():
        if path.exists() and _has_saved(workdir):
            config.model[field] = str(path)
    return config


def read_results(workdir: epath.Path) -> dict[str, Any] | None:
    path = workdir / "results.json"
    if not path.exists():
        return None
    try:
        return _read(path, *FACTS, *_read(path, *FACTS).get("measures", SCORES))
    except UserError as error:  # what it was made from is beside it
        raise UserError(f"{error}; delete it and start the same command again: nothing is trained anew") from error


def write_json(path: epath.Path, value: Mapping[str, Any], indent: int | None = 1) -> None:
    """Writes a JSON file whole or not at all."""
    write_whole(path, json.dumps(value, indent=indent) + "\n")


def versions() -> dict[str, str]:
    own = {"fer_jax": __version__, "python": platform.python_version()}
    return own | {package: importlib.metadata.version(package) for package in PACKAGES}


def git_commit() -> str | None:
    """Returns the commit of the code that runs, with '+' where files have changed since, or None outside git."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def code_facts() -> dict[str, Any]:
    """Returns what decides the numbers besides the config: packages and commit; Python's version does not."""
    return {name: version for name, version in versions().items() if name != "python"} | {"commit": git_commit()}


def device_name() -> str:
    """Returns what the run computed on, e.g. '4 x NVIDIA H100' or 'cpu (x86_64, 2 cores)'."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return f"cpu ({platform.machine()}, {os.cpu_count()} cores)"
    return f"{jax.device_count()} x {device.device_kind}"


def _git(folder: str, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _read_config(path: epath.Path) -> dict[str, Any]:
    """Returns the config in a config.json."""
    try:
        config = _read(path, "config")["config"]
        if not (isinstance(config, dict) and isinstance(config.get("method"), str)):
            raise UserError(f"{path} cannot be read (its 'config' is no config)")
    except UserError as error:
        again = f"put back what it was, or delete the work directory {path.parent} to start it again"
        raise UserError(f"{error}; {REJOIN if _is_sweep(path.parent) else again}") from error
    return config


def _read(path: epath.Path, *fields: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
        if not isinstance(value, dict):
            raise TypeError("it is no JSON object")
        if missing := [field for field in fields if field not in value]:
            raise ValueError(f"it has no '{missing[0]}'")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    return value


def _has_saved(workdir: epath.Path) -> bool:
    """Whether a run has left in its folder what it could go on from, or its end."""
    return (workdir / "results.json").exists() or holds_a_save(workdir / "checkpoints")


def _is_sweep(workdir: epath.Path) -> bool:
    """Whether a folder, whatever its own config.json says, is that of several runs, which have a folder each in it."""
    with reading(workdir):
        runs = [folder for folder in workdir.iterdir() if folder.name.startswith(("seed", "fold"))]
    return not holds_a_save(workdir / "checkpoints") and any((folder / "config.json").exists() for folder in runs)


def _holds_a_run(workdir: epath.Path) -> bool:
    """Whether a run has saved in its folder, or any run of a sweep in its own folder under that."""
    with reading(workdir):
        inside = [folder for folder in workdir.iterdir() if folder.is_dir()]
    return _has_saved(workdir) or any((folder / "config.json").exists() and _holds_a_run(folder) for folder in inside)


def _changes(path: epath.Path, config: Config) -> list[str]:
    """Returns the fields in which `config` differs from the one that is stored at `path`."""
    ours = json.loads(config.to_json())
    return differences(ours, _with_new_fields(_read_config(path), ours))


def _with_new_fields(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Adds to an older config the fields that did not exist when it was written, where ours are at their default."""
    defaults = json.loads(default_config("", "", ours["method"]).to_json())

    def merge(old: Mapping[str, Any], new: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
        merged = dict(old)
        for key, value in default.items():
            if key not in old and new.get(key) == value:
                merged[key] = value
            elif isinstance(value, dict) and isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
                merged[key] = merge(old[key], new[key], value)
        return merged

    return merge(theirs, ours, defaults)


def _assign(config: Config, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            if key not in config:
                config[key] = ml_collections.ConfigDict()
            _assign(config[key], value)
        else:
            config[key] = _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
