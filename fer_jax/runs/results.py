"""What a scored model leaves in a folder: results.json, the prediction table and the report."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from fer_jax.data.sources.source import Source, example_names
from fer_jax.engine.mesh import device_name, on_main
from fer_jax.errors import writing
from fer_jax.evaluation.evaluate import Evaluator
from fer_jax.evaluation.matching import Match
from fer_jax.evaluation.predictions import prediction_rows, write_table
from fer_jax.evaluation.results import Scored, headline, never_recognized
from fer_jax.evaluation.task import Task
from fer_jax.report import Inspection, Predictions, Profile, write_report
from fer_jax.runs.workdir import git_commit, versions, write_json
from fer_jax.storage import write_whole

TABLE = "predictions.csv"
FOLD = "predictions.npz"  # of a fold: the scores over all folds are computed from it


def describe(card: Mapping[str, Any], scored: Scored) -> dict[str, Any]:
    """Returns results.json: the scores of a model, how it was trained, and what it was scored on and with."""
    data = {"data_digest": scored.source.data_digest, "trained_on": card["data"]}
    return with_origin(scored.scores | data | card["run"], card["config"])


def with_origin(results: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns results between the names of what was run and the machine and code that ran it."""
    names = ("experiment", "variant", "method", *(["objective"] if config["objective"] else []))
    origin = {"device": device_name(), "versions": versions(), "git_commit": git_commit()}
    return {name: config[name] for name in names} | dict(results) | origin


def inspect(evaluator: Evaluator, variables: Any, scored: Scored, match: Match) -> Inspection | None:
    """Returns `Method.shown` of the first examples of each class, and of the same examples behind objects."""
    method, labels = evaluator.task.method, scored.source.arrays["label"]
    if not method.shown:
        return None
    few = [np.flatnonzero(labels == c)[: method.shown_examples] for c in range(len(scored.source.classes))]
    rows = np.sort(np.concatenate(few))
    task = dataclasses.replace(evaluator.task, profiles=method.shown, flip_evaluation=False, corner_evaluation=False)
    plain = Evaluator(task, evaluator.mesh, min(len(rows), evaluator.batch_size))

    def look(source: Source) -> Inspection:
        few = source.select(rows)
        outputs = match.of_outputs(plain(variables, few))
        return Inspection(
            classes=source.classes,
            labels=few.arrays["label"],
            logits=outputs.get("logits", np.zeros((len(rows), 0), np.float32)),
            values={name: outputs[name] for name in method.shown if name in outputs},
            fields=few.fields(),
        )

    shown = look(scored.source)
    return shown if scored.covered is None else dataclasses.replace(shown, occluded=look(scored.covered))


def write_results(
    target: epath.Path,
    folder: epath.Path,
    results: dict[str, Any],
    scored: Scored,
    *,
    task: Task,
    config: Any,
    shown: Mapping[str, Any],
) -> None:
    """Writes the prediction table and, if the config says so, the report into `folder`; then the scores.

    Args:
        target: the file of the scores, written last: it marks a run as finished.
        folder: of the table and the report.
        results: the scores (see `describe`).
        scored: what they are of.
        task: of the model.
        config: of the run.
        shown: by the report, besides the scores: `history`, `inspection` and `samples` of `write_report`.
    """

    def write() -> epath.Path | None:
        write_predictions(folder, scored, (tuple(task.method.measures) or ("logits",)) if config.fold else ())
        if config.evaluation.report:
            return _write_report(folder / "report", results, scored, task, config, shown)

    on_main(lambda: write_scores(target, folder, results, write))


def write_scores(
    target: epath.Path, folder: epath.Path, results: dict[str, Any], write: Callable[[], epath.Path | None]
) -> None:
    """Calls `write`, which writes all else into `folder` and returns the report; then writes and prints the scores."""
    with writing(f"the results under {folder}", "make room and start the same command again"):
        page = write()
        write_json(target, results)
    said = (headline(results), never_recognized(results), results.get("protocol"), target, page)
    print("\n".join(str(line) for line in said if line), flush=True)


def write_predictions(folder: epath.Path, scored: Scored, fold_outputs: tuple[str, ...]) -> None:
    """Writes the prediction table, and the outputs of a fold that the scores over all folds will need."""
    source, outputs = scored.source, scored.outputs
    labels = source.arrays["label"]
    if "logits" in outputs:
        name = f"{source.name}:{source.split}"
        frames = source.arrays.get("clip_frame")
        known: dict[str, Any] = {"frames": frames, "labels": labels, "affect": outputs.get("affect")}
        rows = prediction_rows(outputs["logits"], source.classes, source=name, rows=source.rows, **known)
        write_table(folder / TABLE, rows, source.classes)
    if fold_outputs:
        arrays: dict[str, Any] = {"row": source.rows, "label": labels} | {name: outputs[name] for name in fold_outputs}
        file = io.BytesIO()
        np.savez(file, **arrays)
        write_whole(folder / FOLD, file.getvalue())


def _write_report(
    folder: epath.Path, results: dict[str, Any], scored: Scored, task: Task, config: Any, shown: Mapping[str, Any]
) -> epath.Path:
    source, outputs = scored.source, scored.outputs
    predictions = None
    if "logits" in outputs:
        names = example_names(config.data, source)
        votes = source.arrays.get("vote_target")
        more = {"votes": votes, "affect": outputs.get("affect"), "true_affect": source.affect}
        predictions = Predictions(outputs["logits"], source.arrays["label"], source.pictures(), names, **more)
    titles = task.method.profiles
    return write_report(
        folder,
        results=results | {"config": config.to_dict()},
        predictions=predictions,
        profiles={name: Profile(title, outputs[name]) for name, title in titles.items() if name in outputs},
        **shown,
    )
