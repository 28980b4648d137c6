"""Scores where trained models look on synthetic faces, whose action units are known; trains nothing.

    python -m benchmarks.explain runs/fdrl/synthetic runs/acnn/synthetic --out results/explain.json

Every model explains the true class of the same test faces. Its maps stand beside those of the same network with random
weights, and beside random numbers in as many cells. A run that the file has is not scored again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.records import check_file, one_line, readable, user_path, write_file
from fer_jax.data.sources.source import Source, load
from fer_jax.engine.compiler import once_options, platform_of, use_compilation_cache
from fer_jax.engine.mesh import device_name
from fer_jax.errors import UserError, print_any_text
from fer_jax.evaluation.metrics import log_softmax
from fer_jax.evaluation.task import model_input
from fer_jax.inference import explain_scores as scores
from fer_jax.inference import trained
from fer_jax.inference.explain import class_maps, explain, on_faces
from fer_jax.nn.lowering import traced_for
from fer_jax.runs.workdir import git_commit, versions

DATASET = "synthetic_faces/basic"
FACES = 105  # in whose expression at least one action unit acts
UNTRAINED, RANDOM = ", random weights", "random maps"
COLUMNS = {
    "pointing_game": "pointing game, %",
    "relevance_mass": "mass, %",
    "relevance_rank": "rank, %",
    "region_cosine": "cosine",
    "insertion": "insertion",
    "deletion": "deletion",
    "flip": "flip",
    "shift": "shift",
    "rotation": "rotation",
    "light": "light",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="work directories or model files")
    parser.add_argument("--out", type=user_path, required=True, help="JSON file; a table is written beside it")
    parser.add_argument("--faces", type=int, default=FACES, help="how many (default %(default)s)")
    print_any_text()
    args = parser.parse_args(arguments)
    with one_line():
        use_compilation_cache()
        check_file(args.out, ".md")
        record: dict[str, Any] = {"dataset": DATASET, "faces": args.faces, "runs": []}
        if args.out.exists() and args.out.stat().st_size:
            with readable(args.out):
                record = json.loads(args.out.read_text())
                as_table(record)
        if record["faces"] != args.faces:
            raise UserError(f"--faces={args.faces}: {args.out} has scores of {record['faces']}; give another --out")
        for path in args.runs:
            model = trained.load(path)
            if model.card["run"]["params_sha256"] not in {run["params_sha256"] for run in record["runs"]}:
                record["runs"].append(scored(model, args.faces))
                record |= {"device": device_name(), "versions": versions(), "git_commit": git_commit()}
                write_file(args.out, record, as_table(record))
        print(as_table(record))
    return 0


def scored(model: trained.Trained, count: int) -> dict[str, Any]:
    """Returns what is known of a run, and the scores of its maps by kind."""
    few, labels = examples(model, count)
    faces = few.pictures()
    regions = scores.unit_regions(few.arrays["action_units"], few.arrays["landmarks"], faces.shape[1:3])
    own = ["attention"] if model.task.method.attention and not clips(model) else []
    kinds = ["cam", "gradcam", "detail", *own, *(f"{kind}{UNTRAINED}" for kind in ("detail", *own)), RANDOM]
    first = untrained(model, few)

    task = model.task_for(few.picture_shape)
    moved = {name: scores.transformed(faces, name) for name in scores.transforms(faces.shape[1:3])}
    every = joined([with_faces(model, few, faces), *(with_faces(model, few, moved[name], name) for name in moved)])

    def maps_of(kind: str) -> np.ndarray:
        """Maps [1 + transforms, N, H, W]: of the faces, and of them after each transform."""
        if kind == RANDOM:
            drawn = np.random.default_rng(0).random((len(every), *cells), np.float32)
            made = on_faces(drawn, few.picture_shape, task)
        else:
            variables = first if kind.endswith(UNTRAINED) else None
            classes, shown = np.tile(labels, 1 + len(moved)), kind.removesuffix(UNTRAINED)
            made = explain(model, every, classes, shown, variables).maps
        return made.reshape(1 + len(moved), len(labels), *made.shape[1:])

    def probability(shown: np.ndarray) -> np.ndarray:
        logits = model.logits(with_faces(model, few, shown))
        return np.exp(log_softmax(logits))[np.arange(len(labels)), labels]

    made = class_maps(task, model.mesh, model.placed, every.select(np.arange(1)), labels[:1], "detail")
    if made is None:
        raise UserError(f"{model.card['method']} computes no map of a face: leave its run out")
    cells, seen = made[0].shape[1:], on_faces(np.ones_like(made[0]), few.picture_shape, task)[0] > 0
    found: dict[str, dict[str, float]] = {}
    for kind in kinds:
        maps, *after = maps_of(kind)
        found[kind] = scores.region_scores(maps, regions)
        found[kind]["insertion"] = float(scores.insertion(probability, faces, maps).mean())
        found[kind]["deletion"] = float(scores.deletion(probability, faces, maps).mean())
        for name, shown in zip(moved, after, strict=True):
            found[kind][name] = float(scores.consistency(maps, shown, name, seen).mean())
    run = model.card["run"]
    facts = {name: run[name] for name in ("params_sha256", "epochs", "training_examples")}
    facts |= {"method": model.card["method"], "accuracy": model.card["scores"]["accuracy"]}
    return facts | {"probability": float(probability(faces).mean()), "cells": list(cells), "maps": found}


def examples(model: trained.Trained, count: int) -> tuple[Source, np.ndarray]:
    """Returns test faces on which action units act, evenly spread over the split, and their classes for the model."""
    data = model.config.data.copy_and_resolve_references()
    if data.dataset != DATASET:
        data.dataset, data.builder = DATASET, {"train": 6000, "test": 1500, "seed": 0}
    test = load(data, "test", training=False)
    if test.classes != model.classes:
        raise UserError(f"the model knows {', '.join(model.classes)}, and {DATASET} has {', '.join(test.classes)}")
    acting = np.flatnonzero(test.arrays["action_units"].any(axis=1))
    few = test.select(acting[np.linspace(0, len(acting) - 1, min(count, len(acting))).round().astype(int)])
    return few, few.arrays["label"]


def clips(model: trained.Trained) -> bool:
    """Whether the model takes clips: then each face is a clip of one frame."""
    return model.task.method.takes == "frames"


def with_faces(model: trained.Trained, few: Source, faces: np.ndarray, name: str = "light") -> Source:
    """Returns the examples with other faces, and with the points of these where a transform has moved them."""
    if clips(model):
        return model.source_of(faces)
    arrays: dict[str, Any] = dict(few.arrays) | {"image": faces}
    if "points" in arrays:
        matrix = scores.transforms(faces.shape[1:3])[name]
        points = arrays["points"] @ matrix[:, :2].T + matrix[:, 2]
        order = list(model.task.point_mirror) if name == "flip" else slice(None)
        arrays["points"] = points[:, order].astype(np.float32)
    return dataclasses.replace(few, arrays=arrays)


def joined(sources: Sequence[Source]) -> Source:
    """Returns sources of as many examples as one, one after the other."""
    one = sources[0]
    arrays = {name: np.concatenate([source.arrays[name] for source in sources]) for name in one.arrays}
    arrays["index"] = np.arange(len(arrays["index"]), dtype=np.int32)
    frames = {name: np.concatenate([source.frames[name] for source in sources]) for name in one.frames}
    if frames:
        arrays["start"] = np.arange(len(arrays["index"]), dtype=np.int32)  # clips of one frame
    return dataclasses.replace(one, arrays=arrays, frames=frames, rows=np.arange(len(arrays["index"])))


def untrained(model: trained.Trained, few: Source) -> Any:
    """Returns random variables of the model, as training begins with them."""
    import jax  # after fer_jax, which quiets XLA

    task = model.task_for(few.picture_shape)
    source = with_faces(model, few, few.pictures()).select(np.arange(2))
    batch = dict(source.arrays)
    if source.frames:
        batch |= {"frames": source.pictures()[:, None], "frame_mask": np.ones((2, 1), bool)}

    def first(batch: Any) -> Any:
        return task.model.init(jax.random.key(0), model_input(task, batch, None), train=False)

    born = jax.jit(traced_for(platform_of(model.mesh), first), compiler_options=once_options(model.mesh))
    variables = dict(born(batch))
    return variables | {"params": task.method.at_test(variables["params"])}


def as_table(record: Mapping[str, Any]) -> str:
    """Returns the scores as a Markdown table, with what they mean under it."""
    lines = [f"| method, accuracy | map | {' | '.join(COLUMNS.values())} |\n", f"|---|---|{'---|' * len(COLUMNS)}\n"]
    for run in record["runs"]:
        name = f"{run['method']}, {100 * run['accuracy']:.1f} % after {run['epochs']:.3g} epochs"
        for kind, found in run["maps"].items():
            cells = (f"{100 * found[c]:.0f}" if "%" in title else f"{found[c]:.2f}" for c, title in COLUMNS.items())
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} |\n")
            name = ""
    area = {f"{100 * found['area']:.0f} %" for run in record["runs"] for found in run["maps"].values()}
    faces = f"{record['faces']} test faces of {record['dataset']}"
    lines.append(f"\n{faces}; the regions cover {', '.join(area)} of a picture.\n")
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
