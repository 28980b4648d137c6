"""The commands `fer-jax train|evaluate --option=value ...`; `python run.py --mode=X ...` is `fer-jax X ...`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags, logging
from etils import epath

from fer_jax import methods
from fer_jax.config import describe, files
from fer_jax.config.fields import Config, nearest_field
from fer_jax.config.table import FIELDS
from fer_jax.errors import UserError, nearest
from fer_jax.storage import reachable

Options = Any  # argparse.Namespace, with the fields of OPTIONS
NAMING = ("fold", "seeds")  # fields that name the default work directory
INTERRUPTED = 128  # the exit status of a run that signal N stopped is 128 + N, as in a shell
EXAMPLE = "--config=experiments/fdrl.py"

OPTIONS: dict[str, dict[str, Any]] = {
    "config": {"help": "the experiment, FILE.py or FILE.py:VARIANT; --config.FIELD=VALUE overrides a field of it"},
    "workdir": {"help": "work directory of the run; runs/EXPERIMENT/VARIANT by default"},
    "model": {
        "help": "a trained model: a work directory or a model file; by default that of --config",
        "dest": "workdir",
    },
    "split": {"help": "the split to score; the test split of the config by default", "default": ""},
    "dataset": {"help": "another data set than the model was trained on; classes are matched by name", "default": ""},
    "out": {"help": "the JSON file to write the scores to"},
    "coordinator": {"help": "several hosts: HOST:PORT of process 0", "default": ""},
    "num_processes": {"help": "several hosts: the number of processes", "type": int, "default": 0},
    "process_id": {"help": "several hosts: the number of this process, from 0", "type": int, "default": -1},
    "distributed": {"help": "several hosts that JAX finds itself (TPU pod, Slurm)", "action": "store_true"},
    "patience": {"help": "several hosts: seconds to wait for all of them", "type": float, "default": 50.0},
    "print_config": {"help": "print the resolved config and exit", "action": "store_true"},
    "help": {"help": "print this text; with --config, every field of the experiment", "action": "store_true"},
}
HOSTS = ("coordinator", "num_processes", "process_id", "distributed", "patience")
GENERAL = ("config", "workdir", *HOSTS, "print_config", "help")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        help: one line.
        options: names in OPTIONS.
        run: (options, config of --config, values that --config.FIELD=VALUE gives by path) -> exit status.
    """

    help: str
    options: tuple[str, ...]
    run: Callable[[Options, Config | None, dict[str, Any]], int]


def train(options: Options, config: Config | None, changes: dict[str, Any]) -> int:
    """Trains an experiment, or resumes it; `config` includes the changes."""
    del changes
    if config is None:
        raise UserError(f"say what to train, for example {EXAMPLE}")
    from fer_jax.runs.workdir import default_workdir
    from fer_jax.sweeps import sweep
    from fer_jax.training import loop

    folder = reachable(options.workdir, "--workdir") if options.workdir else default_workdir(config)
    with _prepared("train", options, folder, config):
        try:
            sweep.train(config, folder)
        except loop.Interrupted as stop:
            print(f"{stop}; the same command resumes it", flush=True)
            return INTERRUPTED + stop.signum
    return 0


def evaluate(options: Options, config: Config | None, changes: dict[str, Any]) -> int:
    """Scores a trained model: that of --model, else the one that `config` trains."""
    from fer_jax.runs.workdir import default_workdir
    from fer_jax.sweeps import sweep

    if options.workdir:
        folder = reachable(options.workdir, "--model")
    elif config is not None:
        folder = default_workdir(config)
        changes = {field: value for field, value in changes.items() if field not in NAMING}
    else:
        raise UserError("say which model to evaluate: --model=PATH, the work directory of a run or a model file")
    out = reachable(options.out, "--out") if options.out else None
    with _prepared("evaluate", options, folder, config):
        other = {"dataset": options.dataset} if options.dataset else {}
        sweep.evaluate(folder, options.split, out, changes, **other)
    return 0


@contextlib.contextmanager
def _prepared(command: str, options: Options, folder: epath.Path, config: Config | None) -> Iterator[None]:
    """Prepares this process for JAX and joins it to the other hosts, which must run the same command and code."""
    from fer_jax.engine import allocator, hosts
    from fer_jax.runs.workdir import code_facts
    from fer_jax.training import setup

    logging.set_verbosity(logging.ERROR)  # of libraries
    flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with hosts.join(*(vars(options)[name] for name in HOSTS)) as several:
        if several:
            given = {name: vars(options)[name] for name in ("split", "dataset", "out") if name in options}
            given |= {
                "command": command,
                "folder": str(folder),
                "config": json.loads(config.to_json() if config else "{}"),
            }
            hosts.agree("command line", given, "give the same one on every host")
            hosts.agree("code", code_facts(), "install the same on every host")
        allocator.keep_freed_memory()
        setup.use_compilation_cache()
        yield


COMMANDS = {
    "train": Command("trains an experiment, or resumes it", GENERAL, train),
    "evaluate": Command(
        "scores a trained model on a split, or on another data set",
        (*GENERAL, "model", "split", "dataset", "out"),
        evaluate,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command of `arguments`, by default those of the process; returns the exit status.

    0 is success, 2 a mistake of the user, which is printed as one line, and 128 + N a stop by signal N.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # libraries that are loading answer Ctrl-C with a stack trace
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        return INTERRUPTED + signal.SIGINT


def _run(arguments: list[str]) -> int:
    name, arguments = _command(arguments)
    command = COMMANDS[name]
    options, overrides = _parse(name, arguments)
    if options.config:
        config = files.load_config(options.config)
        changes = files.override(config, overrides)
    else:
        config, changes = None, files.parse(overrides, {path: field.default for path, field in FIELDS.items()})
    if options.help or options.print_config:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... --help | head` is not a mistake
        print("\n".join(_shown(options, config)))
        return 0
    return command.run(options, config, changes)


def _command(arguments: list[str]) -> tuple[str, list[str]]:
    """Returns the name of the command and the other arguments; --mode=NAME is the same as NAME in the first place."""
    if arguments and not arguments[0].startswith("-"):
        name, rest, given = arguments[0], arguments[1:], arguments[0]
    else:
        parser = _Parser(add_help=False, allow_abbrev=False)
        parser.add_argument("--mode", default="train")
        known, rest = parser.parse_known_args(arguments)
        name, given = known.mode, f"--mode={known.mode}"
    if name not in COMMANDS:
        hint = f"give an experiment as {EXAMPLE}" if name.endswith(".py") else nearest(name, COMMANDS)
        raise UserError(f"{given}: there is no such command; {hint}")
    return name, rest


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UserError(message)


def _parse(command: str, arguments: list[str]) -> tuple[Options, list[tuple[str, str]]]:
    """Returns the options, and the overridden fields of the config as (path, text)."""
    overrides, rest = _take_overrides(arguments)
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name in COMMANDS[command].options:
        parser.add_argument(f"--{name}", *(["-h"] if name == "help" else []), **OPTIONS[name])
    options, unknown = parser.parse_known_args(rest)
    for argument in unknown:
        name = argument.lstrip("-").partition("=")[0]
        if not argument.startswith("--"):
            raise UserError(f"{argument}: every option begins with --, such as {EXAMPLE}")
        others = [other for other, it in COMMANDS.items() if name in it.options]
        if others:
            raise UserError(f"{argument}: {command} has no such option; {', '.join(others)} has it")
        known = [*OPTIONS, *(f"config.{path}" for path in FIELDS)]
        raise UserError(f"{argument}: there is no such option; {nearest_field(name, known, '--')}")
    return options, overrides


def _take_overrides(arguments: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Splits (path, text) of each `--config.path=text` or `--config.path text` from the other arguments."""
    overrides, rest, remaining = [], [], iter(arguments)
    for argument in remaining:
        if argument.startswith("--config."):
            path, equals, text = argument.removeprefix("--config.").partition("=")
            overrides.append((path, text if equals else next(remaining, "")))
        else:
            rest.append(argument)
    return overrides, rest


def _shown(options: Options, config: Config | None) -> Iterator[str]:
    """Yields the lines of --help and --print_config."""
    if options.print_config:
        if config is None:
            raise UserError(f"--print_config: say which config, for example {EXAMPLE}")
        from fer_jax.config.check import check_config

        check_config(config)
        yield from describe.values(config)
    elif config is not None:
        title, variants, default = files.describe_experiment(options.config.partition(":")[0])
        yield title
        yield f"variants (--config=FILE.py:VARIANT, {default} by default): {', '.join(variants)}"
        yield from describe.helps(config)
    else:
        yield "fer-jax COMMAND --option=value ...       (python run.py --mode=COMMAND is the same)\n\ncommands:"
        yield from (f"  {name:<12} {command.help}" for name, command in COMMANDS.items())
        yield "\noptions:"
        for name, option in OPTIONS.items():
            users = [command for command, it in COMMANDS.items() if name in it.options]
            only = "" if len(users) == len(COMMANDS) else f" ({', '.join(users)})"
            yield f"  --{name:<14} {option['help']}{only}"
        yield "\nexperiments and their variants:"
        for name in files.experiments():
            title, variants, default = files.describe_experiment(name)
            yield f"  {name}\n      {title}\n      {', '.join(v + ' (default)' * (v == default) for v in variants)}"
        yield f"\nmethods: {', '.join(methods.names())}"
        yield f"\n{EXAMPLE} --help lists every field of an experiment, with its default and range."
