"""The commands `fer-jax COMMAND --option=value ...`; `python run.py --mode=X ...` is `fer-jax X ...`."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags, logging
from etils import epath

from fer_jax import __version__, methods
from fer_jax.config import files
from fer_jax.config.fields import fields_of, leaves, nearest_field
from fer_jax.config.table import FIELDS
from fer_jax.errors import UserError, nearest, print_any_text, writing
from fer_jax.methods import strategies
from fer_jax.storage import local, reachable

# argparse.Namespace with the fields of OPTIONS, `experiment`, the config of --config or None, and `changes`, the values
# of --config.FIELD=VALUE by path.
Options = Any
NAMING = ("fold", "seeds")  # fields that name the default work directory
INTERRUPTED = 128  # the exit status of a run that signal N stopped is 128 + N, as in a shell
EXAMPLE = "--config=experiments/fdrl.py"

OPTIONS: dict[str, dict[str, Any]] = {
    "config": {"help": "the experiment, FILE.py or FILE.py:VARIANT; --config.FIELD=VALUE overrides a field of it"},
    "workdir": {"help": "work directory of the run; runs/EXPERIMENT/VARIANT by default"},
    "model": {
        "help": "the trained model: a work directory or model file; predict, explain, export default to a built-in one",
        "dest": "workdir",
    },
    "split": {"help": "evaluate: the split to score; the test split of the config by default", "default": ""},
    "dataset": {"help": "evaluate: a data set other than the one the model was trained on", "default": ""},
    "out": {
        "help": "evaluate: a JSON file; predict: a table, .csv or .jsonl; export: a file; explain, compare: a folder"
    },
    "kind": {"help": "explain: detail, cam, gradcam or attention", "default": "detail"},
    "input": {"help": "predict, explain: a photo, video, folder or camera:0, for use with run.py"},
    "cropped": {"help": "predict, explain: every picture is an already cropped face", "action": "store_true"},
    "format": {"help": "export: stablehlo (for JAX anywhere), onnx, model (for fer_jax)", "default": "stablehlo"},
    "draw": {"help": "predict: a folder for pictures with boxes and labels"},
    "smooth": {
        "help": "predict: weight of earlier frames of a video, from 0 to below 1",
        "type": float,
        "default": 0.0,
    },
    "fps": {"help": "predict, explain: read at most this many frames per second of a video", "type": float},
    "yunet": {"help": "predict, explain: path of YuNet's ONNX file, instead of downloading it"},
    "tensorboard": {"help": "runs: a log folder for TensorBoard; run the same command again to add new lines"},
    "coordinator": {"help": "several hosts: HOST:PORT of process 0", "default": ""},
    "num_processes": {"help": "several hosts: the number of processes", "type": int, "default": 0},
    "process_id": {"help": "several hosts: the number of this process, from 0", "type": int, "default": -1},
    "distributed": {"help": "several hosts, which JAX discovers itself (TPU pod, Slurm)", "action": "store_true"},
    "patience": {"help": "several hosts: seconds to wait for all of them", "type": float, "default": 50.0},
    "print_config": {"help": "print the resolved config and exit", "action": "store_true"},
    "version": {"help": "print the version and exit", "action": "version", "version": f"fer_jax {__version__}"},
    "help": {"help": "print this help; with --config, every field of the experiment", "action": "store_true"},
}
HOSTS = ("coordinator", "num_processes", "process_id", "distributed", "patience")
OF_COMMAND = {  # options that only these commands have
    **dict.fromkeys(("split", "dataset"), ("evaluate",)),
    **dict.fromkeys(HOSTS, ("train", "evaluate")),
    "out": ("evaluate", "predict", "explain", "export", "compare"),
    "kind": ("explain",),
    "format": ("export",),
    **dict.fromkeys(("input", "cropped", "yunet", "fps"), ("predict", "explain")),
    **dict.fromkeys(("draw", "smooth"), ("predict",)),
    "tensorboard": ("runs",),
}


def train(options: Options) -> int:
    """Trains an experiment, or resumes it."""
    if options.experiment is None:
        raise UserError(f"say what to train, for example {EXAMPLE}")
    from fer_jax.runs.workdir import default_workdir
    from fer_jax.sweeps import sweep
    from fer_jax.training import loop

    folder = reachable(options.workdir, "--workdir") if options.workdir else default_workdir(options.experiment)
    with _prepared(options, folder):
        try:
            sweep.train(options.experiment, folder)
        except loop.Interrupted as stop:
            print(f"{stop}; the same command resumes it", flush=True)
            return INTERRUPTED + stop.signum
    return 0


def evaluate(options: Options) -> None:
    """Scores a trained model: the one given by --model, or the one that --config trains."""
    from fer_jax.runs.workdir import default_workdir
    from fer_jax.sweeps import sweep

    changes = options.changes
    if options.workdir:
        folder = reachable(options.workdir, "--model")
    elif options.experiment is not None:
        folder = default_workdir(options.experiment)
        changes = {field: value for field, value in changes.items() if field not in NAMING}
    else:
        raise UserError("say which model to evaluate: --model=PATH, the work directory of a run or a model file")
    out = reachable(options.out, "--out") if options.out else None
    with _prepared(options, folder):
        sweep.evaluate(folder, options.split, out, changes, options.dataset)


def predict(options: Options) -> None:
    """Predicts the expressions of all faces in photos, videos, folders or camera:0."""
    from fer_jax.faces.detection import best_detector
    from fer_jax.faces.inputs import find_inputs
    from fer_jax.inference import trained
    from fer_jax.inference.predict_files import predict_files
    from fer_jax.inference.table import ENDINGS

    if not 0 <= options.smooth < 1:
        raise UserError(f"--smooth={options.smooth}: give a weight from 0 to below 1")
    given = {"--out": options.out, "--draw": options.draw}
    out, draw = (pathlib.Path(local(text, name)) if text else None for name, text in given.items())
    inputs = find_inputs(_given(options), drawn=draw)
    if out and out.suffix.lower() not in ENDINGS:
        raise UserError(f"--out={out}: give a name that ends in {' or '.join(ENDINGS)}")
    with _prepared(options, epath.Path(options.workdir or "")):
        model = trained.load(options.workdir)
        detector = None if options.cropped else best_detector(options.yunet)
        reader = model.reader(detector, smoothing=options.smooth, frames_per_second=options.fps)
        if not out:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... | head` is not a mistake
        predict_files(model, inputs, reader, out=out, draw=draw)


def _given(options: Options) -> list[str]:
    if options.fps is not None and not 0 < options.fps < math.inf:
        raise UserError(f"--fps={options.fps}: give a number above 0")
    given = [*options.inputs, *([options.input] if options.input else [])]
    if not given:
        raise UserError("say where to look for faces: a photo, a video, a folder or camera:0")
    return given


def explain(options: Options) -> None:
    """Shows where a model looks on each face of photos and videos; writes pictures and arrays to a folder."""
    from fer_jax.faces.inputs import CAMERA
    from fer_jax.inference import trained
    from fer_jax.inference.explain_files import explain_files

    given = _given(options)
    if cameras := [text for text in given if CAMERA.fullmatch(text)]:
        raise UserError(f"{cameras[0]}: explain reads photos and videos, not cameras: record a video and give its file")
    folder = pathlib.Path(local(options.out or "explanations", "--out"))
    with _prepared(options, epath.Path(options.workdir or "")):
        model = trained.load(options.workdir)
        explained = model.explain(
            given,
            kind=options.kind,
            cropped=options.cropped,
            yunet=options.yunet,
            frames_per_second=options.fps,
        )
        _say(explain_files(explained, options.kind, folder))


def export(options: Options) -> None:
    """Exports a trained model as one file for other programs, and compares the outputs of both."""
    from fer_jax.inference import trained
    from fer_jax.inference.export import ENDINGS
    from fer_jax.inference.export import export as exported

    forms, place = options.format.split(","), local(options.out or "model", "--out")
    if unknown := [form for form in forms if form not in ENDINGS]:
        raise UserError(f"there is no format '{unknown[0]}'; {nearest(unknown[0], ENDINGS)}")
    with _prepared(options, epath.Path(options.workdir or "")):
        # In float32 wherever it is exported: the program runs on any device.
        model = trained.build(*trained.read(options.workdir), {"train.dtype": "float32"})
        for form in forms:
            ending = ENDINGS[form] if not options.out or len(forms) > 1 else ""
            _say(exported(model, form, pathlib.Path(f"{place}{ending}")))


def compare(options: Options) -> None:
    """Compares finished runs on one page and in one table, with the differences between them."""
    from fer_jax.inference.compare import compare as compared

    paths = [reachable(text, "compare") for text in options.inputs]
    _say(compared(paths, reachable(options.out or "comparison", "--out")))


def runs(options: Options) -> None:
    """Lists the work directories in runs/, or in another folder, and writes an index page."""
    from fer_jax.inference import runs_index
    from fer_jax.inference.tensorboard import add_events

    for text in options.inputs or ["runs"]:
        folder = reachable(text, "runs")
        rows = runs_index.list_runs(folder)
        _say(runs_index.printed(rows))
        for row in rows if options.tensorboard else ():
            add_events(folder / row.name, pathlib.Path(local(options.tensorboard, "--tensorboard"), row.name))
        _say(runs_index.write_index(folder, rows))


def fetch(options: Options) -> None:
    """Downloads a file that fer_jax uses but does not ship: yunet, the face detector."""
    from fer_jax.faces.fetch import FILES
    from fer_jax.faces.fetch import fetch as fetched

    for name in options.inputs or FILES:
        if name not in FILES:
            raise UserError(f"there is no file '{name}' to fetch; {nearest(name, FILES)}")
        _say(fetched(FILES[name]))


def _say(text: Any) -> None:
    with writing("the standard output"):
        print(text, flush=True)


@contextlib.contextmanager
def _prepared(options: Options, folder: epath.Path) -> Iterator[None]:
    """Prepares this process for JAX and joins it to the other hosts, which must run the same command and code."""
    from fer_jax.engine import allocator, compiler, hosts
    from fer_jax.runs.workdir import code_facts

    logging.set_verbosity(logging.ERROR)  # of libraries
    flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with hosts.join(*(vars(options)[name] for name in HOSTS)) as several:
        if several:
            given = {name: vars(options)[name] for name in ("command", "split", "dataset", "out")}
            config = options.experiment
            given |= {"folder": str(folder), "config": json.loads(config.to_json()) if config else {}}
            hosts.agree("command line", given, "give the same one on every host")
            hosts.agree("code", code_facts(), "install the same on every host")
        allocator.keep_freed_memory()
        compiler.use_compilation_cache()
        yield


COMMANDS: dict[str, Callable[[Options], int | None]] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "explain": explain,
    "export": export,
    "compare": compare,
    "runs": runs,
    "fetch": fetch,
}
WITH_INPUTS = ("predict", "explain", "compare", "runs", "fetch")  # commands that take words that are no options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command of `arguments`, by default those of the process; returns the exit status.

    0 is success, 2 a mistake of the user, which is printed as one line, and 128 + N a stop by signal N.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # libraries that are loading answer Ctrl-C with a stack trace
    print_any_text()
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes it", file=sys.stderr)
        return INTERRUPTED + signal.SIGINT


def _run(arguments: list[str]) -> int:
    options, overrides = _parse(arguments)
    if options.config:
        options.experiment = files.load_config(options.config)
        options.changes = files.override(options.experiment, overrides)
    else:
        fields = dict(FIELDS)
        if any(path not in fields for path, _ in overrides):  # a field of some method, whose files import JAX
            fields |= {path: field for name in methods.names() for path, field in fields_of(name).items()}
        options.experiment = None
        options.changes = files.parse(overrides, {path: field.default for path, field in fields.items()})
    if options.help or options.print_config:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... --help | head` is not a mistake
        print("\n".join(_shown(options)))
        return 0
    return COMMANDS[options.command](options) or 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UserError(message)


def _parse(arguments: list[str]) -> tuple[Options, list[tuple[str, str]]]:
    """Returns the options, and the overridden fields of the config as (path, text)."""
    overrides, rest, remaining = [], [], iter(arguments)
    for argument in remaining:
        if argument.startswith("--config."):
            path, equals, text = argument.removeprefix("--config.").partition("=")
            text = text if equals else next(remaining, "--")
            if not equals and text.startswith("--"):
                raise UserError(f"{argument} has no value: give {argument}=VALUE")
            overrides.append((path, text))
        else:
            rest.append(argument)
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--mode", default="train")
    for name, option in OPTIONS.items():
        parser.add_argument(f"--{name}", *(["-h"] if name == "help" else []), **option)
    options, unknown = parser.parse_known_intermixed_args(rest)
    for argument in unknown:
        known = [*OPTIONS, *(f"config.{path}" for path in FIELDS)]
        hint = nearest_field(argument.lstrip("-").partition("=")[0], known)
        raise UserError(f"{argument}: there is no such option; {hint}")
    options.command, *options.inputs = options.words or [options.mode]
    if options.command not in COMMANDS:
        hint = f"give an experiment as {EXAMPLE}" if options.command.endswith(".py") else ""
        raise UserError(f"there is no command '{options.command}'; {hint or nearest(options.command, COMMANDS)}")
    if options.inputs and options.command not in WITH_INPUTS:
        raise UserError(f"{options.inputs[0]}: every option begins with --, such as {EXAMPLE}")
    for name, commands in OF_COMMAND.items():
        if vars(options)[name] != parser.get_default(name) and options.command not in commands:
            raise UserError(f"--{name} is an option of {' and '.join(commands)}, not of {options.command}")
    if options.command not in ("train", "evaluate") and (options.config or overrides):
        raise UserError(f"--config: {options.command} uses the config that the model was trained with: leave it out")
    return options, overrides


def _shown(options: Options) -> Iterator[str]:
    """Yields the lines of --help and --print_config."""
    config = options.experiment
    if config is None:
        yield "fer-jax COMMAND --option=value ...       (python run.py --mode=COMMAND is the same)\n\ncommands:"
        yield from (f"  {name:<12} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items())
        yield "\noptions:"
        yield from (f"  --{name:<14} {option['help']}" for name, option in OPTIONS.items())
        yield "\nexperiments and their variants:"
        for name in files.experiments():
            title, variants = files.describe_experiment(name)
            yield f"  {name}\n      {title}\n      {variants}"
        yield f"\nmethods: {', '.join(methods.names())}"
        yield f"strategies (--config.objective=NAME+NAME): {', '.join(strategies.names())}"
        yield f"\n{EXAMPLE} --help lists every field of an experiment, with its default and range."
    elif options.print_config:
        from fer_jax.config.check import check_config

        check_config(config)
        yield from (f"config.{path} = {value!r}" for path, value in leaves(config, ()))
    else:
        from fer_jax.config.describe import helps

        title, variants = files.describe_experiment(options.config.partition(":")[0])
        yield f"{title}\nvariants: {variants}"
        yield from helps(config)
