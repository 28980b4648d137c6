"""The work directory of a run: which config it belongs to, and the files that describe the run."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from etils import epath

from fer_jax import __version__, methods
from fer_jax.config.fields import Config, assign, config_from, default_config
from fer_jax.config.protocol import ALL
from fer_jax.engine.hosts import agree
from fer_jax.engine.mesh import device_name, on_main, told_by_main
from fer_jax.errors import UserError, differences, reading, some, writing
from fer_jax.locks import alone
from fer_jax.parsing import read_json
from fer_jax.runs.checkpoint import has_checkpoint
from fer_jax.runs.model_file import MODEL, read_model
from fer_jax.storage import absolute, expect_folder, write_whole

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")
SHOWN = 6  # differences named in a message
TOKEN = 32  # characters that end the owner of a lock and that no other has
NETWORK_SECONDS = 15.0  # until a file that another host wrote is seen on a network file system
# Fields that every results.json has, with their types; sweeps and messages read them.
SCORED = {"dataset": str, "split": str, "num_examples": int, "classes": list}
FACTS = SCORED | {"selection": dict, "params": int, "wall_seconds": (int, float)}
UNREADABLE = set("[\\")  # Orbax reads a bracket as a pattern, and TensorStore a backslash as a slash


def default_workdir(config: Config) -> epath.Path:
    """Returns runs/<experiment>/<variant>, with several seeds <variant>_seeds.

    A single fold has the same folder in there as when all folds are trained.

    Raises:
        UserError: if these names are none of a folder, such as '../mine'.
    """
    for field in ("experiment", "variant"):
        if not re.fullmatch(r"\w[\w.+-]*", config[field]):
            raise UserError(f"config.{field}={config[field]!r} cannot name a folder: give --workdir")
    several = "_seeds" if config.seeds != 1 else ""
    folder = epath.Path("runs") / config.experiment / f"{config.variant}{several}"
    return folder if config.fold in ("", ALL) else fold_folder(folder, config.fold)


def fold_folder(workdir: epath.Path, number: int | str) -> epath.Path:
    """Returns the folder of one fold, counted from 1, in the work directory of all folds."""
    return workdir / f"fold{number:0>2}"


def seed_folder(workdir: epath.Path, seed: int) -> epath.Path:
    """Returns the folder of one seed in the work directory of all seeds."""
    return workdir / f"seed{seed:02}"


def check_owner(workdir: epath.Path, config: Config) -> None:
    """Raises UserError if the folder holds a checkpoint or results of another config, naming fields."""
    for character in UNREADABLE & set(str(absolute(workdir))):
        raise UserError(
            f"checkpoints cannot be read from the work directory {workdir}, whose path has '{character}': give another "
            "with --workdir"
        )
    for folder in (workdir, workdir / "report"):
        expect_folder(folder)
    if not ((workdir / "config.json").exists() or _has_saved(workdir)):
        return
    changed = _changes(workdir, config)
    if changed and _holds_a_run(workdir):
        raise UserError(
            f"work directory {workdir} belongs to another config ({some(changed, SHOWN, '; ')}): give another "
            "--workdir, or delete it"
        )


@contextlib.contextmanager
def claim(
    workdir: epath.Path,
    config: Config,
    files: Mapping[str, Any] | None = None,
    started_from: Mapping[str, Any] | None = None,
    grows: bool = False,
) -> Iterator[None]:
    """Locks the folder for this run inside the `with` block, and writes its config.json if that is missing.

    Args:
        workdir: the folder.
        config: of the run.
        files: JSON values by file name that are kept with the run; their source is not needed after a checkpoint.
        started_from: which weights the run starts from at step 0; kept in config.json as well.
        grows: whether the folder gets a new config because seeds are added; then its results are removed.

    Raises:
        UserError: if the folder cannot be written, belongs to another config, is used by another process, or is not
            shared by all hosts.
    """
    lock = contextlib.ExitStack()

    def write() -> str:
        path = workdir / "config.json"
        with writing(f"the work directory {workdir}", "give another with --workdir"):
            workdir.mkdir(parents=True, exist_ok=True)
            busy = f"another process is at work in {workdir}: wait for it, or give another --workdir"
            owner = lock.enter_context(alone(workdir / ".lock", busy))
            if grows:
                (workdir / "results.json").unlink(missing_ok=True)
            else:
                check_owner(workdir, config)  # again: another process may have been at work until now
            # A run without a checkpoint may start from other weights the next time, or have another config or machine.
            if grows or not path.exists() or not _has_saved(workdir):
                facts = {"config": json.loads(config.to_json())} | _machine() | {"git_commit": git_commit()}
                write_json(path, facts | ({"started_from": started_from} if started_from else {}))
            for name, values in (files or {}).items():
                if not (_has_saved(workdir) and (workdir / name).exists()):
                    write_json(workdir / name, values, indent=None)
        return owner

    with lock:
        _check_shared(workdir, on_main(write))
        yield


def _check_shared(workdir: epath.Path, owner: str | None) -> None:
    """Raises UserError unless every process sees the lock of process 0, `owner`: all of them read the checkpoints.

    A file that another run left is no proof: each host may have a folder of this name.
    """
    if jax.process_count() == 1:
        return
    token = told_by_main((owner or TOKEN * " ")[-TOKEN:].encode()).decode()

    def is_there() -> bool:
        with contextlib.suppress(OSError):  # not there yet
            return token in (workdir / ".lock").read_text()
        return False

    deadline = time.monotonic() + NETWORK_SECONDS
    while not (there := is_there()) and time.monotonic() < deadline:
        time.sleep(0.2)
    agree("work directory", {"shared": there}, f"{workdir} must be one that all hosts share, or a bucket")


def stored_config(workdir: epath.Path) -> Config:
    """Returns the config that a work directory was trained with."""
    if not (workdir / "config.json").exists():
        raise UserError(f"{workdir} is not the work directory of a run: it has no config.json")
    return with_kept_files(config_from(_read_config(workdir)), workdir)


def with_kept_files(config: Config, workdir: epath.Path) -> Config:
    """Returns the config of a run whose fields name the files kept with it in place of their first source.

    Files of a run that has not saved a checkpoint may belong to another config.
    """
    kept = {field: workdir / name for field, name in methods.of(config).kept.items()}
    config = config.copy_and_resolve_references()
    for field, path in kept.items():
        if path.exists() and _has_saved(workdir):
            assign(config, field, str(path))
    return config


def read_results(workdir: epath.Path) -> dict[str, Any] | None:
    """Returns the results of a finished run or sweep; None if it is not finished."""
    path = workdir / "results.json"
    if not path.exists():
        return None
    return read_json(path, "delete it and start the same command again: nothing is trained again", FACTS)


def write_json(path: epath.Path, value: Mapping[str, Any], indent: int | None = 1) -> None:
    """Writes a JSON file whole or not at all."""
    write_whole(path, json.dumps(value, indent=indent) + "\n")


def versions() -> dict[str, str]:
    own = {"fer_jax": __version__, "python": platform.python_version()}
    return own | {package: importlib.metadata.version(package) for package in PACKAGES}


def changed_machine(workdir: epath.Path) -> str:
    """Returns what decides the last digits and is not as when the run began, as 'name: then -> now'; '' if nothing."""
    then, now = read_json(workdir / "config.json", fields={}), _machine()
    changed = differences(now, {name: then.get(name, value) for name, value in now.items()})
    return "; ".join(line for line in changed if not line.startswith("versions.python:"))


def _machine() -> dict[str, Any]:
    return {"versions": versions(), "device": device_name()}


@functools.cache  # what a process runs is what it started with, whatever is edited or committed meanwhile
def git_commit() -> str | None:
    """Returns the commit of the code that runs, None outside git; '+' says that files besides results differ."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        # An installation may lie in the repository of something else.
        _git(here, "ls-files", "--error-unmatch", os.path.basename(__file__))
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results")
        return _git(here, "rev-parse", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.SubprocessError):
        return None


def code_facts() -> dict[str, Any]:
    """Returns what decides the numbers besides the config: the packages and the commit, but not Python's version."""
    return {name: version for name, version in versions().items() if name != "python"} | {"commit": git_commit()}


def _git(folder: str, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _read_config(workdir: epath.Path) -> dict[str, Any]:
    """Returns the config in config.json, or if that is missing, in the model file."""
    path, model = workdir / "config.json", workdir / MODEL
    if model.exists() and not path.exists():
        return read_model(model)[1]["config"]
    again = (
        "restore it, or delete it and results.json beside it and start the same command again: what is trained is kept"
    )
    config = read_json(path, again, {"config": dict})["config"]
    if not isinstance(config.get("method"), str):
        raise UserError(f"{path} is damaged (its 'config' is not a config): {again}")
    return config


def _has_saved(workdir: epath.Path) -> bool:
    """Whether a run has left a checkpoint or results."""
    return (workdir / "results.json").exists() or has_checkpoint(workdir / "checkpoints")


def _holds_a_run(workdir: epath.Path) -> bool:
    """Whether a run has left something in the folder, or a run of a sweep in its folder in there."""
    return _has_saved(workdir) or any(map(_holds_a_run, _members(workdir)))


def _members(workdir: epath.Path) -> list[epath.Path]:
    """Returns the folders of the runs of a sweep."""
    with reading(workdir):
        folders = [folder for folder in workdir.iterdir() if folder.name.startswith(("seed", "fold"))]
    return [folder for folder in folders if (folder / "config.json").exists()]


def _changes(workdir: epath.Path, config: Config) -> list[str]:
    """Returns the fields in which `config` differs from the stored one; new fields at their default do not count."""
    ours, theirs = json.loads(config.to_json()), _read_config(workdir)
    defaults = json.loads(default_config("", "", config.method).to_json())
    new = {line for line in differences(defaults, theirs) if ": None -> " in line}
    return [line for line in differences(ours, theirs) if line not in new]
