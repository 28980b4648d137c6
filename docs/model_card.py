"""Makes the model that comes with fer_jax from a finished run: `python -m docs.model_card RUN [--data_dir=FOLDER]`.

The weights are rounded to bfloat16. In this form the model is scored again, on the split that selects models, which
sets the confidence below which it is unsure, and on the test split. That is a reading of the test split, and is added
to the log of all readings, `results/private_test_reads.csv`. Written are `fer_jax/shipped/model.safetensors` and
`MODEL_CARD.md` beside it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
from typing import Any

from etils import epath

from docs import readings
from fer_jax.data.sources.source import load
from fer_jax.engine.compiler import use_compilation_cache
from fer_jax.evaluation.evaluate import Evaluator
from fer_jax.evaluation.matching import whole
from fer_jax.evaluation.results import card_scores, score_model, unsure
from fer_jax.inference import trained
from fer_jax.report.markup import percent
from fer_jax.runs.model_file import halved, read_model, write_model
from fer_jax.runs.workdir import git_commit

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCORES = ("accuracy", "mean_recall", "macro_f1")
PAGE = """# The model that comes with fer_jax

`fer_jax.load()` and `fer-jax predict` use this model by default. Its classes are {classes}.

| | |
|---|---|
| network | `{method}`, {params:,} parameters; sees 48x48 gray pixels: whole face and magnified corners, also mirrored |
| file | `model.safetensors`, {megabytes:.1f} MB, weights in bfloat16, Apache-2.0 |
| trained on | {training:,} pictures of FER-2013 ({split}), {epochs:.0f} epochs from scratch, seed {seed} |
| selected on | {validation:,} pictures ({chosen}) |
| scored on | {examples:,} pictures ({test}), read {reads} times so far (below) |
| cost | {minutes:.0f} minutes on {device} |
| made by | `{command}`, then `python -m docs.model_card {folder}`, commit {commit} |

## Scores

| | {test} | 95 % interval |
|---|---|---|
| accuracy | {accuracy} | {accuracy_interval} |
| mean recall | {mean_recall} | {mean_recall_interval} |
| macro F1 | {macro_f1} | {macro_f1_interval} |
| calibration error | {ece} | |
| accuracy with one view | {plain} | |

The intervals are from a bootstrap over the test pictures; they do not include the variation between seeds.

| class | pictures | recall | precision |
|---|---|---|---|
{recalls}

## Confidence

A prediction is marked `unsure` if its confidence is below {threshold:.3f}. This threshold was chosen on {chosen}, where
at most {risk} of the predictions above it are wrong. On {test} it keeps {coverage} of the pictures, and {achieved} of
them are wrong.

## Limits of use

The model predicts which expression people would name in a picture of a face, not what a person feels, thinks or
intends. Do not use it to judge people: in hiring, teaching, policing, border control, medicine, insurance or
surveillance.

FER-2013 was collected by web search. Its labels are noisy: in about a third of the training pictures, the annotators of
FER+ see another expression. Posed and acted faces are frequent. Age, gender and skin color were neither recorded nor
balanced, so nobody knows for whom the model fails more often. It is weakest on the classes with low recall above, on
faces that are turned away, covered or smaller than about 40 pixels, and on everything that is not a face.

## Readings of {test}

Each line is one reading of the test split by an experiment of this repository; nothing was selected by it. {noise} runs
of `experiments/noise.py` were scored on the same pictures, by the majority of FER+.

| date | commit | model | accuracy | mean recall |
|---|---|---|---|---|
{log}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="its work directory")
    parser.add_argument("--data_dir", default="", help="folder of the prepared data")
    options = parser.parse_args()
    use_compilation_cache()
    variables, card = trained.read(options.run)
    file, weights = epath.Path(trained.SHIPPED), halved(variables)
    file.parent.mkdir(exist_ok=True)
    write_model(file, weights, card)  # scored as it is read
    scores = _score(trained.build(*read_model(file), {"data.data_dir": options.data_dir}))
    card["config"]["data"] |= {"data_dir": "", "manual_dir": ""}
    card |= {"scores": card_scores(scores), "unsure": scores["unsure"]}
    write_model(file, weights, card)
    config, run = card["config"], json.loads((epath.Path(options.run) / "config.json").read_text())
    name = f"{config['experiment']}.py:{config['variant']} seed {config['seed']}"
    name += f", as shipped ({card['run']['params_sha256'][:7]})"
    commit = readings.short(str(git_commit()))
    row = [datetime.date.today().isoformat(), commit, name, *(f"{scores[n]:.4f}" for n in SCORES[:2])]
    # The same model again is no other reading.
    readings.write(ROOT, [*(other for other in readings.read(ROOT) if other[2] != name), row])
    (file.parent / "MODEL_CARD.md").write_text(page(card, scores, run, file.stat().length))


def _score(model: trained.Trained) -> dict[str, Any]:
    """Returns the scores on the test split, with `unsure` as the selecting split sets it."""
    data = model.config.data
    validation, test = (load(data, s, training=False) for s in (data.validation_split, data.test_split))
    evaluator = Evaluator(model.task, model.mesh, model.config.evaluation.batch_size)
    scored = score_model(evaluator, model.placed, whole(test), model.config)
    logits = evaluator(model.placed, validation)["logits"]
    return scored.scores | {"unsure": unsure(logits, validation, model.config, scored)}


def page(card: dict[str, Any], scores: dict[str, Any], run: dict[str, Any], size: int) -> str:
    """Returns the model card.

    Args:
        card: of the model file.
        scores: of it on the test split.
        run: the config.json of its run.
        size: of the model file, bytes.
    """
    trained_by, sure, config = card["run"], card["unsure"], card["config"]
    reads = readings.read(ROOT)
    ranges = {f"{n}_interval": " to ".join(map(percent, scores[f"{n}_interval"])) for n in SCORES}
    by_class = zip(card["classes"], scores["support"], scores["recall"], scores["precision"], strict=True)
    return PAGE.format(
        **{n: percent(scores[n]) for n in (*SCORES, "ece")},
        **ranges,
        plain=percent(scores["plain"]["accuracy"]),
        classes=", ".join(card["classes"]),
        method=card["method"],
        params=trained_by["params"],
        megabytes=size / 1e6,
        training=trained_by["training_examples"],
        validation=trained_by["validation_examples"],
        examples=scores["num_examples"],
        split=config["data"]["train_split"],
        chosen=sure["chosen_on"],
        test=scores["split"],
        reads=len(reads),
        epochs=trained_by["epochs"],
        seed=config["seed"],
        minutes=trained_by["wall_seconds"] / 60,
        device=run["device"],
        command=f"python run.py --config=experiments/{config['experiment']}.py:{config['variant']}",
        folder=f"runs/{config['experiment']}/{config['variant']}",
        commit=readings.short(run["git_commit"]),
        recalls="\n".join(f"| {c} | {n:,} | {percent(r)} | {percent(p)} |" for c, n, r, p in by_class),
        threshold=sure["threshold"],
        risk=percent(sure["risk"]),
        coverage=percent(sure["test"]["coverage"]),
        achieved=percent(sure["test"]["risk"]),
        noise=sum(
            len([*(ROOT / "results/noise/cpu" / kind).glob("*.json")]) for kind in ("clean", "real", "symmetric30")
        ),
        log="\n".join(f"| {' | '.join(row)} |" for row in reads),
    )


if __name__ == "__main__":
    main()
