"""What each part of experiments/fer2013_fast.py contributes, on a smaller budget than that of the recipe.

    python -m benchmarks.time_to_accuracy --out results/fer2013_fast_pieces.json [--epochs 5] [--seeds 2] [--arms=1,2]

Every arm is the recipe for two CPU cores with one part removed or added, trained for as many epochs and scored on
public_test, which selects the model; private_test is not used. Names that begin with "and" are parts that only the
recipe for a GPU has. Steps of different arms take different times: read both columns. Resumes after a kill: an arm in
the file is not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from etils import epath

from benchmarks.records import check_file, readable, user_path
from experiments.fer2013_fast import get_config
from fer_jax.config.fields import Config, assign
from fer_jax.engine.allocator import keep_freed_memory
from fer_jax.engine.compiler import use_compilation_cache
from fer_jax.engine.mesh import device_name
from fer_jax.errors import UserError, nearest, writing
from fer_jax.inference.evaluate import evaluate
from fer_jax.runs.workdir import git_commit, versions
from fer_jax.storage import write_whole
from fer_jax.training import loop

SGD = {
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.2,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 5e-4,
    "optimizer.decoupled": False,
}
ADAM = {"optimizer.name": "adamw", "optimizer.learning_rate": 4e-3, "optimizer.momentum": 0.9}
EPOCHS = 5.0
RECIPE = "the recipe"
VIEWS = "the recipe, with its views of each image at the test"  # the other scores are of the image alone
ARMS: dict[str, dict[str, Any]] = {
    RECIPE: {},
    "SGD with Nesterov momentum in place of Muon": SGD,
    "AdamW in place of Muon": ADAM,
    "cosine in place of the triangle": {"schedule.name": "one_cycle"},
    "batches of 256": {"train.batch_size": 256},
    "no moving average": {"train.ema_decay": 0.0},
    "48 pixels from the first step on": {"data.resolutions": ()},
    "no standardisation": {"preprocessing.standardize": False},
    "flips drawn in place of alternating": {"augmentation.train": ("shift:4", "flip")},
    "no flips": {"augmentation.train": ("shift:4",)},
    "no shifts": {"augmentation.train": ("flip:alternate",)},
    "no label smoothing": {"data.label_smoothing": 0.0},
    "a 3x3 stem in place of patches": {"model.stem": "conv"},
    "strides but in the first stage": {"model.strided": 2},
    "strides in every stage": {"model.strided": 3},
    "the mean in place of the maximum": {"model.head": "mean"},
    "and a third wider": {"model.widths": (64, 128, 256)},
    "and three convolutions in a stage": {"model.convolutions": 3},
    "and dropout": {"model.dropout": 0.2},
    "and rotations": {"augmentation.train": ("shift:4", "rotate:10", "flip:alternate")},
    "and erased rectangles": {"augmentation.train": ("shift:4", "flip:alternate", "erase:0.5")},
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=user_path, required=True, help="JSON file; a table is written beside it")
    parser.add_argument("--epochs", type=float, help="of each run (default: those of the file, or 5 in a new one)")
    parser.add_argument("--seeds", type=int, default=2, help="from 0 on (default %(default)s)")
    parser.add_argument("--data_dir", default="", help="where FER-2013 lies prepared (default: TFDS's own)")
    numbered = ", ".join(f"{number} {arm}" for number, arm in enumerate(ARMS))
    parser.add_argument("--arms", default="", help=f"some, by number or name, besides the recipe ({numbered})")
    args = parser.parse_args(arguments)
    try:
        measure(args, chosen(args.arms))
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    return 0


def chosen(text: str) -> list[str]:
    """Returns the arms that `--arms` names, after the recipe they are compared with; '' names all."""
    names = dict(zip(map(str, range(len(ARMS))), ARMS, strict=True)) | {arm: arm for arm in ARMS}
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if part not in names:
            raise UserError(f"--arms={text}: there is no arm '{part}'; {nearest(part, ARMS)}")
    return [arm for arm in ARMS if not parts or arm in {RECIPE, *(names[part] for part in parts)}]


def measure(args: argparse.Namespace, arms: Sequence[str]) -> None:
    """Trains each arm with each seed unless the file has it; writes file and table after each."""
    keep_freed_memory()
    use_compilation_cache()
    if args.seeds < 1:
        raise UserError(f"--seeds={args.seeds}: give at least 1")
    check_file(args.out, ".md")
    epochs = EPOCHS if args.epochs is None else args.epochs
    recipe = json.loads(config_of(RECIPE).to_json())
    record: dict[str, Any] = {"epochs": epochs, "split": "public_test", "recipe": recipe, "runs": []}
    if args.out.exists():
        with readable(args.out):
            record = json.loads(args.out.read_text())
            as_table({"device": ""} | record)
    if args.epochs not in (None, record["epochs"]):
        raise UserError(
            f"--epochs={args.epochs:g}: the runs in {args.out} have {record['epochs']:g}; leave it out, or give "
            "another --out"
        )
    if record["runs"] and record.get("recipe") != recipe:
        raise UserError(f"{args.out} holds runs of another recipe: move it away, or give another --out")
    done = {(run["arm"], run["seed"]) for run in record["runs"]}
    for seed in range(args.seeds):
        for arm in arms:
            if (arm, seed) in done:
                continue
            record["runs"] += trained(arm, seed, record["epochs"], args.data_dir)
            record |= {"recipe": recipe, "device": device_name(), "versions": versions(), "git_commit": git_commit()}
            with writing(args.out):
                write_whole(args.out, json.dumps(record, indent=1) + "\n")
                args.out.with_suffix(".md").write_text(as_table(record))
    print(as_table(record))


def config_of(arm: str) -> Config:
    """Returns the recipe with the fields of an arm."""
    config = get_config("cpu")
    for field, value in ARMS[arm].items():
        assign(config, field, value)
    return config


def trained(arm: str, seed: int, epochs: float, data_dir: str) -> list[dict[str, Any]]:
    """Trains an arm; returns its accuracy on the validation split and the seconds of training.

    The recipe itself is followed by the scores of the same model with its views.
    """
    config = config_of(arm)
    config.seed = seed
    config.train.epochs = config.train.eval_every_epochs = epochs
    config.data.data_dir = data_dir
    config.selection.rule, views, config.evaluation.views = "last", config.evaluation.views, ""
    config.evaluation.report = False
    config.evaluation.bootstrap = 0
    with tempfile.TemporaryDirectory() as folder:
        run = epath.Path(folder) / "run"
        results = loop.train(config, run)
        seconds = {"seed": seed, "seconds": results["training_seconds"]}
        found = [{"arm": arm, "accuracy": results["selection"]["best_validation"]["accuracy"]} | seconds]
        if arm == RECIPE:
            seen = evaluate(run, split=config.data.validation_split, changes={"evaluation.views": views})
            found.append({"arm": VIEWS, "accuracy": seen["accuracy"]} | seconds)
    return found


def as_table(record: dict[str, Any]) -> str:
    """Returns the arms as Markdown, with differences paired by seed."""
    runs = {(run["arm"], run["seed"]): run for run in record["runs"]}
    what = f"{record['epochs']:g} epochs, {record['device']}"
    lines = [f"| {what} | {record['split']}, % | to the recipe, points | seconds |", "|---|---|---|---|"]
    for arm in (RECIPE, VIEWS, *list(ARMS)[1:]):
        seeds = [seed for name, seed in runs if name == arm and (RECIPE, seed) in runs]
        if not seeds:
            continue
        scores = [100 * runs[arm, seed]["accuracy"] for seed in seeds]
        against = [score - 100 * runs[RECIPE, seed]["accuracy"] for score, seed in zip(scores, seeds, strict=True)]
        difference = "" if arm == RECIPE else " / ".join(f"{d:+.1f}" for d in against)
        seconds = statistics.mean(runs[arm, seed]["seconds"] for seed in seeds)
        lines.append(f"| {arm} | {' / '.join(f'{s:.1f}' for s in scores)} | {difference} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
