"""`--mode=evaluate`: scores a trained model on a split of its own data set, or on another data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etils import epath

from fer_jax import methods
from fer_jax.config.check import check_config
from fer_jax.config.fields import Config, config_from, leaves
from fer_jax.config.protocol import part_to_score, part_to_test, protocol, split_to_test
from fer_jax.data.sources.source import facts, load, prepared_builder
from fer_jax.engine.memory import explained
from fer_jax.engine.mesh import is_main, on_main
from fer_jax.errors import UserError, some, writing
from fer_jax.evaluation.evaluate import Evaluator
from fer_jax.evaluation.matching import Match, match_classes, whole
from fer_jax.evaluation.results import score_model
from fer_jax.inference import trained
from fer_jax.inference.explain import look
from fer_jax.inference.pairs import PairMatch, match_pairs, needs_threshold, reads_pairs
from fer_jax.parsing import read_json, read_lines
from fer_jax.runs.results import describe, inspect, write_results
from fer_jax.runs.workdir import SCORED
from fer_jax.storage import expect_file, expect_folder

# To these come the fields that a method has in `Method.changeable`.
CHANGEABLE = ("evaluation.", "data.data_dir", "data.manual_dir", "data.label_noise_file", "train.platform")
CHANGEABLE += ("train.devices",)
LAST_FACES = 3  # of a clip that is scored by a model of images which was not trained on clips


def evaluate(
    path: epath.Path,
    split: str = "",
    out: epath.Path | None = None,
    changes: Mapping[str, Any] | None = None,
    dataset: str = "",
) -> dict[str, Any]:
    """Scores a trained model; writes the scores, the prediction table and the report.

    Args:
        path: the folder of a run, which is not changed, or a model file.
        split: of the data set; its test split by default. For a run that tests a fold, naming the split that is
            divided into folds scores the other folds.
        out: the file of the scores; `evaluation-<split>/results.json` in the run's folder by default.
        changes: config fields to override, by path; only those of `CHANGEABLE`.
        dataset: a data set other than the one it was trained on; classes are matched by name, and compound classes
            are predicted from the probabilities of basic ones (see `fer_jax.inference.pairs`).

    Returns:
        The scores, as in results.json.

    Raises:
        UserError: for an unknown split, data set or field, if there is no model or no class in common, if the result
            cannot be written, and if a device has too little memory.
    """
    variables, card = trained.read(str(path))
    check_changes(changes or {}, config_from(card["config"]))
    model = trained.build(variables, card, changes or {})
    config = model.config
    if changes:
        check_config(config)
    match, is_test = _read(model, split, dataset)
    source = match.source
    folder = evaluation_folder(path, source.split, dataset)
    target = out or folder / "results.json"
    on_main(lambda: make_places(target, folder))  # before the work, not after it
    if is_main() and match.describe():
        print(match.describe(), flush=True)
    batch_size = config.evaluation.batch_size
    with explained(model.mesh, f"give a smaller config.evaluation.batch_size than {batch_size}"):
        evaluator = Evaluator(model.task_for(source.picture_shape), model.mesh, batch_size)
        scored = score_model(evaluator, model.placed, match, config)
        seen = inspect(evaluator, model.placed, scored, match) if config.evaluation.report else None
    results = describe(model.card, scored) | facts(config.data)
    if match.left_out:
        results["left_out"] = match.left_out
    if dataset:
        results["protocol"] = f"Trained on {model.card['data']['name']}, tested on {source.name}."
        if isinstance(match, PairMatch):
            results["protocol"] += f" {match.describe()}"
    elif is_test and (sentence := protocol(config, model.card["run"].get("fold", {}).get("of", 0))):
        results["protocol"] = sentence
    before = model.card["scores"]
    same_split = (before.get("dataset"), before.get("split")) == (source.name, source.split)
    if same_split and before["data_digest"] != source.data_digest:
        results["note"] = (
            f"{source.name} {source.split} has changed since the model was scored on it at the end of its run: "
            f"{before['num_examples']} {source.unit} then, {len(source)} now, or other pictures or labels"
        )
        on_main(lambda: print(f"note: {results['note']}", flush=True))
    shown: dict[str, Any] = {
        "history": read_lines(path / "metrics.jsonl") if path.is_dir() else [],
        "inspection": seen,
        "look": lambda: look(model.task_for(source.picture_shape), model.mesh, model.placed, match),
    }
    if isinstance(match, PairMatch):
        del shown["look"]  # the model has no map of a pair
    write_results(target, folder, results, scored, task=model.task, config=config, shown=shown)
    return results


def _read(model: trained.Trained, split: str, dataset: str) -> tuple[Match, bool]:
    """Returns the examples to score, and whether they are the test examples of the model's own data set."""
    config = model.config
    if dataset:
        return _read_other(model, split, dataset), False
    source = load(config.data, split or split_to_test(config), training=False)
    if source.classes != model.classes:
        raise UserError(
            f"the model was trained on the classes {some(model.classes)}, but the data set has "
            f"{some(source.classes)}: prepare again the data set that it was trained on, or name the one to score "
            f"with --dataset={source.name}"
        )
    is_test = not split or (split == config.data.test_split and not config.fold)
    return whole(part_to_score(config, source) if split else part_to_test(config, source)), is_test


def _read_other(model: trained.Trained, split: str, dataset: str) -> Match:
    """Reads a data set that the model was not trained on; `model.config.data` then describes it."""
    data, method = model.config.data, model.task.method
    data.folds, model.config.fold = "", ""
    if dataset.partition("/")[0] != data.dataset.partition("/")[0]:
        data.builder = {}  # options of the other builder
    if data.builder and is_main():
        print(f"{dataset} with the options of the run's own data set: {dict(data.builder)}", flush=True)
    data.dataset = dataset
    info = prepared_builder(data).info
    data.target = "label" if "label" in info.features else "majority"
    clips = "frames" in info.features
    if not clips and method.takes == "frames":
        raise UserError(
            f"--dataset={dataset} has images, but {model.card['method']} takes clips: name a data set of clips"
        )
    data.last_frames = (data.last_frames or LAST_FACES) if clips and method.takes != "frames" else 0
    data.neutral_frames, data.drop_classes = 0, ()
    split = split or next((name for name in ("test", data.test_split) if name in info.splits), "")
    if not split:
        raise UserError(f"--dataset={dataset} has no test split: give --split, one of {', '.join(info.splits)}")
    source = load(data, split, training=False)
    if method.measures:
        return whole(source)
    if not reads_pairs(source.classes, model.classes):
        return match_classes(source, model.classes)
    if not needs_threshold(source.classes):
        return match_pairs(source, model, None)
    if split == "train" or "train" not in info.splits:
        raise UserError(
            f"--dataset={dataset}: a threshold between basic and compound expressions is chosen on its split train: "
            "score another split"
        )
    return match_pairs(source, model, load(data, "train", training=False))


def make_places(target: epath.Path, folder: epath.Path) -> None:
    """Creates the folders that an evaluation writes into.

    Args:
        target: the file of the scores.
        folder: of the report and the predictions.

    Raises:
        UserError: if a file or folder blocks one of them, and if `target` is a file that no evaluation wrote.
    """
    for place in (target.parent, folder):
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
    expect_folder(folder / "report")
    expect_file(target)
    if target != folder / "results.json" and target.is_file() and target.stat().length:
        lost = f"--out={target} is a file that no evaluation wrote, and would be lost: give another name"
        if target.name == "results.json" and (target.parent / "config.json").exists():
            raise UserError(lost)
        try:
            read_json(target, fields=SCORED)
        except UserError as error:
            raise UserError(lost) from error


def check_changes(changes: Mapping[str, Any], config: Config) -> None:
    """Raises UserError if `changes` has a field that must stay as it was when the model was trained."""
    changeable = (*CHANGEABLE, *(f"model.{name}" for name in methods.load(config.method).changeable))
    stored = dict(leaves(config, ()))
    for field, value in changes.items():
        if not field.startswith(changeable) and (field not in stored or value != stored[field]):
            raise UserError(
                f"--config.{field}: a trained model is scored with the config it was trained with; "
                f"only {', '.join(f'{c}*' if c.endswith('.') else c for c in changeable)} can be changed"
            )


def evaluation_folder(path: epath.Path, split: str, dataset: str = "") -> epath.Path:
    """Returns where `evaluate` writes the results of a split: in the folder of a run, or beside a model file."""
    scored = "-".join(filter(None, (dataset.replace("/", "_"), split.replace(" ", "_"))))
    return path / f"evaluation-{scored}" if path.is_dir() else path.parent / f"{path.stem}-evaluation-{scored}"
