"""Finishes a run: reads the test split once, and writes results.json, the model file and the report."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from fer_jax.config.protocol import fold_facts, part_to_test, protocol, selected_on, split_to_test
from fer_jax.data.augment.augmentation import augment
from fer_jax.data.augment.inputs import alternate_flips
from fer_jax.data.sources.source import facts, load
from fer_jax.engine.compiler import once_options
from fer_jax.engine.mesh import on_main
from fer_jax.engine.rng import stream_key
from fer_jax.evaluation.evaluate import Evaluator, score
from fer_jax.evaluation.matching import whole
from fer_jax.evaluation.results import card_scores, headline, main_scores, score_model, unsure
from fer_jax.evaluation.wrong_labels import wrong_labels
from fer_jax.inference.explain import look
from fer_jax.labels import MANY_CLASSES
from fer_jax.parsing import read_lines
from fer_jax.report import Samples
from fer_jax.runs.checkpoint import tree_sha256
from fer_jax.runs.model_file import MODEL, write_model
from fer_jax.runs.results import describe, inspect, write_results
from fer_jax.runs.workdir import read_results, versions
from fer_jax.training.setup import Setup
from fer_jax.training.state import RunRecord, TrainState, num_parameters

if TYPE_CHECKING:
    from fer_jax.training.run import Run

SAMPLES = 24
GALLERY = 9  # images of each class


def print_finished(workdir: epath.Path) -> dict[str, Any] | None:
    """Prints the scores of a finished run and returns its results; None if it is not finished."""
    results = read_results(workdir)
    if results is not None:
        page = workdir / "report" / "index.html"
        line = f"{workdir} is finished: {headline(results)}" + (f"; its report is {page}" if page.exists() else "")
        on_main(lambda: print(line, flush=True))
    return results


def finish(run: Run, evaluator: Evaluator) -> dict[str, Any]:
    """Scores the selected and the last model of a run on the test split, and writes the files of a finished run.

    Returns:
        What was written to results.json.
    """
    setup, workdir, best, config = run.setup, run.workdir, run.best, run.setup.config
    test = part_to_test(config, load(config.data, split_to_test(config), training=False))
    variables = {"params": best["params"], **best["collections"]}
    match = whole(test)
    scored = score_model(evaluator, variables, match, config)
    last = score(evaluator(run.state.variables(), test), test, bootstrap=0, task=setup.task)
    card = model_card(setup, run.state, run.record)
    card["run"]["selection"]["last"]["test"] = main_scores(last)
    if setup.label_noise:
        trained_on = evaluator(variables, setup.train, views=False)
        card["run"]["label_noise"] = setup.label_noise | {"model": wrong_labels(trained_on, setup.train)}
    results = describe(card, scored) | facts(config.data)
    if sentence := protocol(config, setup.train.folds):
        results["protocol"] = sentence
    card["scores"] = card_scores(results)
    if "logits" in scored.outputs and len(setup.validation):
        card["unsure"] = unsure(evaluator(variables, setup.validation)["logits"], setup.validation, config, scored)
    shown: dict[str, Any] = {}
    if config.evaluation.report:
        seen = inspect(evaluator, variables, scored, match)
        shown = {"history": read_lines(workdir / "metrics.jsonl"), "inspection": seen, "samples": _samples(setup)}
        shown["look"] = lambda: look(setup.task, setup.mesh, variables, match)
    tested = variables | {"params": setup.task.method.at_test(best["params"])}
    on_main(lambda: write_model(workdir / MODEL, tested, card))
    target = workdir / "results.json"
    write_results(target, workdir, results, scored, task=setup.task, config=config, shown=shown)
    return results


def model_card(setup: Setup, state: TrainState, record: RunRecord) -> dict[str, Any]:
    """Returns the description that a model file holds (see `inference.trained.Trained`), as plain JSON values."""
    config, data = setup.config, setup.config.data
    prepared = facts(data).get("data", {})
    return {
        "method": config.method,
        "objective": config.objective,
        "model": config.model.to_dict() | dict(setup.model_fields.fields),
        "classes": list(setup.train.classes),
        "preprocessing": dataclasses.asdict(setup.task.preprocessing),
        "data": {
            "name": setup.train.name,
            "split": data.train_split,
            "data_digest": setup.train.data_digest,
            "picture": list(setup.train.picture_shape),
        },
        "crop": prepared.get("crop", prepared.get("options", {})),
        "scores": {},
        "run": _run_facts(setup, state, record),
        "config": json.loads(config.to_json()),
        "versions": versions(),
    }


def _run_facts(setup: Setup, state: TrainState, record: RunRecord) -> dict[str, Any]:
    """Returns how a model was selected and trained, for results.json."""
    config = setup.config
    measures = {"measures": setup.task.method.measures} if setup.task.method.measures else {}
    rate = record.images / max(record.seconds, 1e-9)
    return {
        "selection": {
            "rule": config.selection.rule,
            "metric": config.selection.metric,
            "on": selected_on(config),
            "best_step": record.best.get("step"),
            "best_validation": main_scores(record.best | measures),
            "last": {"step": record.last.get("step"), "validation": main_scores(record.last | measures)},
        },
        "steps": int(state.step),
        "epochs": int(state.step) / setup.task.steps_per_epoch,
        **fold_facts(config, setup.train.folds),
        "seed": config.seed,
        "started_from": record.started_from or "scratch",
        "params": num_parameters(setup.task.method.at_test(state.params)),
        "params_sha256": tree_sha256(state.params, state.collections),
        **setup.model_fields.facts,
        **({"label_noise": setup.label_noise} if setup.label_noise else {}),
        "training_examples": len(setup.train),
        "validation_examples": len(setup.validation),
        # All steps at the measured rate: steps whose dispatch was compiled first were not timed.
        "training_seconds": int(state.step) * setup.images_per_step / rate if rate else None,
        "images_per_second": rate,
        "waiting_for_data": record.waited / max(record.seconds, 1e-9),
        "wall_seconds": record.wall_seconds,
    }


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
    for number in range(min(len(setup.train.classes), MANY_CLASSES)):
        members = np.flatnonzero(labels == number)
        chosen = np.linspace(0, len(members) - 1, min(GALLERY, len(members))).astype(int)
        gallery.append(setup.train.pictures(members[chosen]))
    return Samples(images=images, augmented=shown, labels=labels[rows], gallery=gallery)
