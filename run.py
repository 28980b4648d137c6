"""Trains or evaluates an experiment:  python run.py --config=experiments/fdrl.py[:variant] [--config.field=value]."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while libraries load: nothing is lost, and they take it badly

import functools
import glob
import json
import operator
import os
import runpy
import sys
from typing import Any

import ml_collections
from absl import flags, logging
from etils import epath
from ml_collections import config_flags

from fer_jax.config.renamed import RENAMED
from fer_jax.errors import UserError, nearest
from fer_jax.storage import reachable

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment: FILE.py or FILE.py:variant.")
_MODE = flags.DEFINE_string("mode", "train", "train | evaluate")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives; runs/<experiment>/<variant> by default.")
_SPLIT = flags.DEFINE_string("split", "", "evaluate: the split to score; the config's test split by default.")
_OUTPUT = flags.DEFINE_string("output", None, "evaluate: the JSON file to write the scores to.")
_COORDINATOR = flags.DEFINE_string("coordinator", "", "Several hosts: host:port of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "Several hosts: how many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", -1, "Several hosts: which of them this one is, from 0.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Several hosts that JAX finds by itself (TPU pod, Slurm).")
_PATIENCE = flags.DEFINE_float("patience", 50.0, "Several hosts: seconds to wait at the start for all of them.", 1.0)

MODES = ("train", "evaluate")
NAMING = ("fold", "seeds")  # fields that have named the default folder
INTERRUPTED = 128  # exit status of a run stopped by signal N is 128 + N, as a shell says it


def main() -> int:
    logging.set_verbosity(logging.ERROR)  # the libraries' chatter; ours is printed
    if _MODE.value not in MODES:
        raise UserError(f"--mode={_MODE.value}: {nearest(_MODE.value, MODES)}")

    experiment = _CONFIG.value
    if _MODE.value == "train" and experiment is None:
        raise UserError("say what to train, for example --config=experiments/fdrl.py")
    if not (_WORKDIR.value or experiment):
        raise UserError("--mode=evaluate needs --workdir=FOLDER, the folder of a trained run")

    # Imported late: what is wrong with the command line is said at once.
    from fer_jax.engine import hosts
    from fer_jax.runs import workdir

    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = reachable(_WORKDIR.value, "--workdir") if _WORKDIR.value else workdir.default_workdir(experiment)
    others = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, _DISTRIBUTED.value, _PATIENCE.value)
    with hosts.join(*others) as several:
        if several:
            asked = {"mode": _MODE.value, "workdir": str(folder), "split": _SPLIT.value, "output": _OUTPUT.value}
            given = json.loads(experiment.to_json()) if experiment else {}
            hosts.agree("command line", asked | {"config": given}, "give the same one on every host")
            hosts.agree("code", workdir.code_facts(), "install the same on every host")
        return work(experiment, folder)


def work(experiment: Any, folder: epath.Path) -> int:
    """Trains or evaluates; returns the exit status."""
    from fer_jax.engine import allocator
    from fer_jax.sweeps import sweep
    from fer_jax.training import loop, setup

    allocator.keep_freed_memory()
    setup.use_compilation_cache()
    if _MODE.value == "evaluate":
        fields = [override_path(argument) for argument in sys.argv[1:] if is_override(argument)]
        changes = {field: functools.reduce(operator.getitem, field.split("."), experiment) for field in fields}
        if not _WORKDIR.value:
            changes = {field: value for field, value in changes.items() if field not in NAMING}
        output = reachable(_OUTPUT.value, "--output") if _OUTPUT.value else None
        sweep.evaluate(folder, _SPLIT.value, output, changes)
        return 0
    try:
        sweep.train(experiment, folder)
    except loop.Interrupted as stop:
        print(f"{stop}; the same command goes on from there", flush=True)
        return INTERRUPTED + stop.signum
    return 0


def parse(arguments: list[str]) -> None:
    """Parses the command line, its mistakes turned into one line each."""
    overrides = [argument for argument in arguments[1:] if is_override(argument)]
    config = load_config(arguments)
    if config is None and overrides:
        raise UserError(f"{overrides[0]}: say which config, for example --config=experiments/fdrl.py")
    for override in overrides:
        check_field(config, override)
    try:
        rest = flags.FLAGS(arguments)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"command line: {' '.join(str(error).split())}") from error
    if len(rest) > 1:
        raise UserError(f"do not know what to do with '{rest[1]}': every option begins with --")


def load_config(arguments: list[str]) -> Any:
    """Returns the config that the command line names, before overrides, or None where it names none.

    The flags library answers a missing file with an error that shows up later, and a misspelt field without a word
    on what there is; so both are looked at here first.
    """
    named = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, equals, value = argument.lstrip("-").partition("=")
        if flag == "config" and argument.startswith("-"):
            named.append(value if equals else following)
    if not named:
        return None
    path, _, variant = named[-1].partition(":")
    if not os.path.isfile(path):
        there = sorted(glob.glob("experiments/*.py"))
        raise UserError(f"--config: there is no file {path}; {nearest(path, there)}")
    module = runpy.run_path(path)
    if "get_config" not in module:
        raise UserError(f"--config: {path} is no experiment: it has no get_config")
    return module["get_config"](variant) if variant else module["get_config"]()


def is_override(argument: str) -> bool:
    """Whether an argument is `--config.path.to.field=...`."""
    return argument.startswith("-") and argument.lstrip("-").startswith("config.")


def override_path(argument: str) -> str:
    """Returns 'path.to.field' of `--config.path.to.field=...`."""
    return argument.lstrip("-").partition("=")[0].removeprefix("config.")


def check_field(config: Any, override: str) -> None:
    """Refuses `--config.path.to.field=...` where the config has no such field."""
    here: Any = config
    walked = "config"
    for name in override_path(override).split("."):
        if not isinstance(here, ml_collections.ConfigDict) or name not in here:
            known = here.keys() if isinstance(here, ml_collections.ConfigDict) else ()
            hint = RENAMED.get(override_path(override)) or f"{walked} has no field '{name}'; {nearest(name, known)}"
            raise UserError(f"{override}: {hint}")
        here, walked = here[name], f"{walked}.{name}"


if __name__ == "__main__":
    try:
        parse(sys.argv)
        sys.exit(main())
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last save", file=sys.stderr)
        sys.exit(INTERRUPTED + 2)
