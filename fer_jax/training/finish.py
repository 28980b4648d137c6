"""The end of a run: the test split read once, results.json, the report; and the same again for `--mode=evaluate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from fer_jax import methods
from fer_jax.config.protocol import fold_facts, part_to_score, part_to_test, protocol, selected_on, split_to_test
from fer_jax.data.augment.augmentation import augment
from fer_jax.data.augment.inputs import alternate_flips
from fer_jax.data.corrupt.degradation import degraded, images_sha256, parse
from fer_jax.data.corrupt.occlusion import behind_test_objects
from fer_jax.data.sources.source import Source, facts, load
from fer_jax.engine.compiler import once_options
from fer_jax.engine.memory import explained
from fer_jax.engine.mesh import on_main
from fer_jax.engine.rng import stream_key
from fer_jax.errors import UserError, writing
from fer_jax.evaluation.evaluate import Evaluator, Outputs, score
from fer_jax.report import Inspection, Predictions, Profile, Samples, write_report
from fer_jax.runs.checkpoint import tree_sha256
from fer_jax.runs.stored import read_model
from fer_jax.runs.workdir import device_name, git_commit, read_results, stored_run, versions, write_json
from fer_jax.storage import expect_file, expect_folder
from fer_jax.training.log import read_lines
from fer_jax.training.setup import Setup
from fer_jax.training.state import TrainState, num_parameters

SAMPLES = 24
GALLERY = 9  # images of each class
# See `evaluate`; to these come the fields that a method has in `Method.changeable`.
CHANGEABLE = (
    *("evaluation.", "data.data_dir", "data.manual_dir", "data.label_noise_file"),
    *("train.platform", "train.devices"),
)
HEADLINE = ("accuracy", "mean_recall", "macro_f1", "nll", "ece")
PREDICTIONS = "predictions.npz"  # of a fold: what scores over all folds are made of


def say_finished(workdir: epath.Path) -> dict[str, Any] | None:
    """Prints the score of a run that is finished and returns its results; None where it is not."""
    results = read_results(workdir)
    if results is not None:
        page = workdir / "report" / "index.html"
        shown = f"; its report is {page}" if page.exists() else ""
        on_main(lambda: _say(f"{workdir} is finished: {headline(results)}{shown}"))
    return results


def write_results(
    setup: Setup,
    evaluator: Evaluator,
    workdir: epath.Path,
    state: TrainState,
    best: Any,
    memory: dict[str, Any],
) -> dict[str, Any]:
    """Scores the selected and the last model on the test split, and writes results.json and the report."""
    config = setup.config
    test = part_to_test(config, load(config.data, split_to_test(config), training=False))
    variables = {"params": best["params"], **best["collections"]}
    outputs = evaluator(variables, test)
    last = score(evaluator(state.variables(), test), test, bootstrap=0, task=setup.task)
    scores = score(outputs, test, bootstrap=config.evaluation.bootstrap, task=setup.task)
    covered = behind_test_objects(test) if config.evaluation.occluded else None
    scores |= _plain(setup, outputs, test) | _occluded(setup, evaluator, variables, covered, scores)
    scores |= _degraded(setup, evaluator, variables, test, scores)
    results = _describe(setup, scores, state, memory)
    results["selection"]["last"]["test"] = main_scores(last)
    results |= _protocol(setup)

    shown = _shown(setup, variables, test, covered)

    def write() -> None:
        with writing(f"the results under {workdir}", "make room and start the same command again"):
            page = _report(setup, workdir, results, outputs, test, shown)
            _keep_predictions(setup, workdir, outputs, test)
            write_json(workdir / "results.json", results)  # last: it marks the run as finished
        _say(headline(results), results.get("protocol"), workdir / "results.json", page)

    on_main(write)
    return results


def evaluate(
    workdir: epath.Path,
    split: str = "",
    output: epath.Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Scores the stored best model of `workdir` on a split (its test split by default); writes JSON and pictures.

    Args:
        workdir: of a run; nothing of the run itself is changed.
        split: of its data set; of a run that tests a fold, the split that is divided stands for the other folds.
        output: where the scores go; `workdir/evaluation-<split>/results.json` by default.
        changes: fields of its config to read differently, by path: those of `CHANGEABLE`.

    Raises:
        UserError: for an unknown split or field, where nothing is stored, where the result cannot be written, and
            where a device has too little memory.
    """
    check_changes(changes or {}, stored_run(workdir).method)
    model = read_model(workdir, changes)
    setup, config = model.setup, model.setup.config
    read = load(config.data, split or split_to_test(config), training=False)
    source = part_to_score(config, read) if split else part_to_test(config, read)
    folder = evaluation_folder(workdir, source.split)
    target = output or folder / "results.json"
    beside = bool(config.evaluation.report or (config.fold and not split))  # whether anything but the scores is written
    on_main(lambda: make_places(target, folder, beside))  # said before the work, not after it
    with explained(setup.mesh, config, training=False):
        evaluator = Evaluator(setup.task, setup.mesh, config.evaluation.batch_size)
        outputs = evaluator(model.variables, source)
        scores = score(outputs, source, bootstrap=config.evaluation.bootstrap, task=setup.task)
        covered = behind_test_objects(source) if config.evaluation.occluded else None
        scores |= _plain(setup, outputs, source) | _occluded(setup, evaluator, model.variables, covered, scores)
        scores |= _degraded(setup, evaluator, model.variables, source, scores)
        shown = _shown(setup, model.variables, source, covered)
    results = _describe(setup, scores, model.state, model.record)
    if not split or (split == config.data.test_split and not config.fold):
        results |= _protocol(setup)

    def write() -> None:
        with writing(f"{target} or the report beside it"):
            page = _report(setup, folder, results, outputs, source, shown, history=workdir / "metrics.jsonl")
            if not split:
                _keep_predictions(setup, folder, outputs, source)
            write_json(target, results)
        _say(headline(results), results.get("protocol"), target, page)

    on_main(write)
    return results


def make_places(target: epath.Path, folder: epath.Path, beside: bool = True) -> None:
    """Makes the folders of what an evaluation writes, and refuses what lies in its way.

    Args:
        target: the file of the scores.
        folder: of the report and the predictions.
        beside: whether there will be any.
    """
    for place in (target.parent, folder) if beside else (target.parent,):
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
    if beside:
        expect_folder(folder / "report")
    expect_file(target)


def check_changes(fields: Iterable[str], method: str) -> None:
    """Raises UserError for a field of a stored config that may not differ when a model of `method` is scored."""
    changeable = (*CHANGEABLE, *(f"model.{name}" for name in methods.load(method).changeable))
    for field in fields:
        if not field.startswith(changeable):
            raise UserError(
                f"--config.{field}: a stored model is scored with the config it was trained with; "
                f"only {', '.join(f'{c}*' if c.endswith('.') else c for c in changeable)} can be changed"
            )


def evaluation_folder(workdir: epath.Path, split: str) -> epath.Path:
    """Returns where `evaluate` writes what it finds on a split."""
    return workdir / f"evaluation-{split.replace(' ', '_')}"


def _protocol(setup: Setup) -> dict[str, str]:
    """Returns `protocol`, the sentence that scores on the test split need; nothing where they need none."""
    sentence = protocol(setup.config, setup.train.folds)
    return {"protocol": sentence} if sentence else {}


def _keep_predictions(setup: Setup, folder: epath.Path, outputs: Outputs, source: Source) -> None:
    """Writes what was predicted for a fold, by its place in the split as stored; other runs need no such file."""
    if not setup.config.fold:
        return
    names = setup.task.method.measures or ("logits",)
    arrays: dict[str, Any] = {"row": source.rows, "label": source.arrays["label"]}
    arrays |= {name: outputs[name] for name in names}
    with (folder / PREDICTIONS).open("wb") as file:
        np.savez(file, **arrays)


def _say(*lines: Any) -> None:
    print("\n".join(str(line) for line in lines if line is not None), flush=True)


def main_scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Those scores of an evaluation that are logged and remembered; None for one that there is not."""
    return {name: scores.get(name) for name in scores.get("measures", HEADLINE)}


def _occluded(
    setup: Setup, evaluator: Evaluator, variables: Any, covered: Source | None, clean: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns `occluded`, the scores behind objects and the accuracy that they cost; nothing without such images."""
    return {} if covered is None else {"occluded": _scored_again(setup, evaluator, variables, covered, clean)}


def _degraded(
    setup: Setup, evaluator: Evaluator, variables: Any, source: Source, clean: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns `degraded`: by degradation, what it is, the digest of its images, and the scores on them."""
    found = {}
    for text in setup.config.evaluation.degraded:
        worse = degraded(source, text)
        scores = _scored_again(setup, evaluator, variables, worse, clean)
        found[text] = parse(text) | {"images_sha256": images_sha256(worse)} | scores
    return {"degraded": found} if found else {}


def _scored_again(
    setup: Setup, evaluator: Evaluator, variables: Any, source: Source, clean: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the scores on copies of the images and the accuracy lost against `clean`, the scores on the images."""
    scores = _short(setup, evaluator(variables, source), source)
    return scores | {"accuracy_lost": clean["accuracy"] - scores["accuracy"]}


def _plain(setup: Setup, outputs: Outputs, source: Source) -> dict[str, Any]:
    """Returns `plain`, the scores of the images alone, where the others are those of several views of each."""
    if "plain_logits" not in outputs:
        return {}
    return {"plain": _short(setup, outputs | {"logits": outputs["plain_logits"]}, source)}


def _short(setup: Setup, outputs: Outputs, source: Source) -> dict[str, Any]:
    """The main scores with their intervals and the confusion."""
    scores = score(outputs, source, bootstrap=setup.config.evaluation.bootstrap, task=setup.task)
    return {k: v for k, v in scores.items() if k in (*HEADLINE, "confusion") or k.endswith("_interval")}


def headline(results: dict[str, Any]) -> str:
    """Returns the score of a run, or of a sweep, in one line."""
    if "seeds" in results:
        return _over_seeds(results)
    if "measures" in results:
        means = ", ".join(f"{title} {results[name]:.3f}" for name, title in results["measures"].items())
        return (
            f"{results['dataset']} {results['split']}, {results['num_examples']} images: {means}{_over_folds(results)}"
        )
    interval = results.get("accuracy_interval")
    between = f" (95 % interval {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
    return (
        f"{results['dataset']} {results['split']}, {results['num_examples']} {results.get('unit', 'images')}: "
        f"accuracy {results['accuracy']:.4f}{between}, "
        f"mean recall {results['mean_recall']:.4f}, macro F1 {results['macro_f1']:.4f}"
        + (f"; of the images alone: accuracy {results['plain']['accuracy']:.4f}" if "plain" in results else "")
        + (f"; behind objects: accuracy {results['occluded']['accuracy']:.4f}" if "occluded" in results else "")
        + "".join(f"; {name}: accuracy {found['accuracy']:.4f}" for name, found in results.get("degraded", {}).items())
        + _over_folds(results)
    )


def _over_seeds(results: Mapping[str, Any]) -> str:
    """The means over seeds, with standard deviation and interval."""
    names = list(results.get("measures", ("accuracy", "mean_recall", "macro_f1")))
    shown = []
    for name in names:
        low, high = results["interval"][name]
        mean, std = results["mean"][name], results["std"][name]
        title = name.replace("_f1", " F1").replace("_", " ")
        shown.append(f"{title} {mean:.4f} ± {std:.4f} (95 % interval of the mean {low:.4f} to {high:.4f})")
    return (
        f"{results['dataset']} {results['split']}, {results['num_examples']} {results.get('unit', 'images')}, "
        f"{len(results['seeds'])} seeds: {', '.join(shown)}"
    )


def _over_folds(results: Mapping[str, Any]) -> str:
    """Adds the mean over folds to a headline whose scores are those of all examples together."""
    if "folds" not in results:
        return ""
    names = list(results.get("measures", ("accuracy", "mean_recall")))
    shown = (f"{n.replace('_', ' ')} {results['mean'][n]:.4f} ± {results['std'][n]:.4f}" for n in names)
    return f"; mean over the folds: {', '.join(shown)}"


def _describe(setup: Setup, scores: Mapping[str, Any], state: TrainState, memory: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the scores of the selected model with all that says how they came about."""
    config = setup.config
    measures = {"measures": scores["measures"]} if "measures" in scores else {}
    rate = memory["images"] / max(memory["seconds"], 1e-9)
    return {
        "experiment": config.experiment,
        "variant": config.variant,
        "method": config.method,
        **scores,
        "selection": {
            "rule": config.selection.rule,
            "metric": config.selection.metric,
            "on": selected_on(config),
            "best_step": memory["best"].get("step"),
            "best_validation": main_scores(memory["best"] | measures),
            "last": {
                "step": memory["last"].get("step"),
                "validation": main_scores(memory["last"] | measures),
            },
        },
        "steps": int(state.step),
        "epochs": int(state.step) / setup.steps_per_epoch,
        **fold_facts(config, setup.train.folds),
        **facts(config.data),
        "seed": config.seed,
        "started_from": memory.get("started_from") or "scratch",
        "params": num_parameters(setup.task.method.at_test(state.params)),
        "params_sha256": tree_sha256(state.params, state.collections),
        **setup.model_fields.facts,
        **({"label_noise": setup.label_noise} if setup.label_noise else {}),
        "training_examples": len(setup.train),
        "validation_examples": len(setup.validation),
        # Of all steps at the measured rate: those of a dispatch that was compiled first were not timed.
        "training_seconds": int(state.step) * setup.images_per_step / rate if rate else None,
        "images_per_second": rate,
        "waiting_for_data": memory["waited"] / max(memory["seconds"], 1e-9),
        "wall_seconds": memory["wall_seconds"],
        "device": device_name(),
        "versions": versions(),
        "git_commit": git_commit(),
    }


def _report(
    setup: Setup,
    folder: epath.Path,
    results: dict[str, Any],
    outputs: Outputs,
    source: Source,
    shown: Inspection | None,
    history: epath.Path | None = None,
) -> epath.Path | None:
    """Writes the report and returns its page; None where the config wants none."""
    if not setup.config.evaluation.report:
        return None
    titles = setup.task.method.profiles
    return write_report(
        folder / "report",
        results=results | {"config": setup.config.to_dict()},
        history=read_lines(history or folder / "metrics.jsonl"),
        predictions=None if "measures" in results else _predictions(outputs, source),
        samples=_samples(setup),
        profiles={
            name: Profile(title=title, values=outputs[name]) for name, title in titles.items() if name in outputs
        },
        inspection=shown,
    )


def _predictions(outputs: Outputs, source: Source) -> Predictions:
    return Predictions(logits=outputs["logits"], labels=source.arrays["label"], images=source.pictures())


def _shown(setup: Setup, variables: Any, source: Source, covered: Source | None) -> Inspection | None:
    """Returns `Method.shown` of the first examples of each class, and of the same examples behind objects."""
    names = setup.task.method.shown
    if not names or not setup.config.evaluation.report:
        return None
    labels = source.arrays["label"]
    count = setup.task.method.shown_examples
    rows = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(len(source.classes))]))
    task = dataclasses.replace(setup.task, profiles=tuple(names), flip_evaluation=False, corner_evaluation=False)
    evaluator = Evaluator(task, setup.mesh, min(len(rows), setup.config.evaluation.batch_size))

    def look(source: Source) -> Inspection:
        few = source.select(rows)
        outputs = evaluator(variables, few)
        return Inspection(
            classes=source.classes,
            labels=few.arrays["label"],
            logits=outputs.get("logits", np.zeros((len(rows), 0), np.float32)),
            values={name: outputs[name] for name in names if name in outputs},
            fields=few.fields(),
        )

    shown = look(source)
    return shown if covered is None else dataclasses.replace(shown, occluded=look(covered))


def _samples(setup: Setup) -> Samples:
    """Training images as stored, and as the network sees such images in the first epoch."""
    rows = np.linspace(0, len(setup.train) - 1, SAMPLES).astype(int)
    images, seed, flips = setup.train.pictures(rows), setup.config.seed, None
    task = setup.task.at_size(setup.stages[0].size)
    if task.augmentation.alternates:
        flips = alternate_flips(stream_key(seed, "flip"), jnp.asarray(rows), jnp.zeros(len(rows), jnp.int32))
    # One program: its many operations one by one take longer to compile.
    program = jax.jit(augment, static_argnums=(2, 3), compiler_options=once_options(setup.mesh))
    key = stream_key(seed, "augment")
    seen = np.asarray(program(key, jnp.asarray(images), task.augmentation, task.preprocessing, flips=flips))
    low, high = seen.min(axis=(1, 2, 3), keepdims=True), seen.max(axis=(1, 2, 3), keepdims=True)
    shown = (255 * (seen - low) / np.maximum(high - low, 1e-6)).astype(np.uint8)
    labels = setup.train.arrays["label"]
    gallery = []
    for number in range(len(setup.train.classes)):
        members = np.flatnonzero(labels == number)
        chosen = np.linspace(0, len(members) - 1, min(GALLERY, len(members))).astype(int)
        gallery.append(setup.train.pictures(members[chosen]))
    return Samples(images=images, augmented=shown, labels=labels[rows], gallery=gallery)
