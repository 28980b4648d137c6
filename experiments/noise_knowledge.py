"""What a network trained by `experiments/noise.py` reveals about wrong labels and about its own errors."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from experiments.comparison import mean
from fer_jax.data.sources.source import Source
from fer_jax.evaluation.evaluate import Outputs
from fer_jax.evaluation.metrics import log_softmax
from fer_jax.inference.explain import explain
from fer_jax.inference.explain_scores import consistency, transformed
from fer_jax.inference.trained import Trained
from fer_jax.report.learning import COLORS
from fer_jax.report.style import in_percent, new_figure, quiet, to_png

FACES = 256  # whose maps are compared, of each kind
KEPT = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # shares of the test pictures
OWN = "uncertainty"  # what the method itself learns, if it does


def knowledge(model: Trained, train: Source, log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns further scores of a run on wrong labels, in addition to `wrong_labels`, as plain JSON values.

    Args:
        model: trained on `train`.
        train: the training examples, with the true labels in `clean_label`.
        log: the lines of metrics.jsonl.

    Returns:
        `memorized_by_epoch`: [epoch, fraction of wrong labels predicted on the training views];
        `map_disagreement` of pictures with wrong and with right labels; `relabeling` and `dropping` at the end of
        training, for methods that do so.
    """
    steps = [line for line in log if line["kind"] == "train"]
    wrong = train.arrays["label"] != train.arrays["clean_label"]
    kinds = {"wrong": wrong, "right": ~wrong}
    return {
        "memorized_by_epoch": [[line["epoch"], line["memorized"]] for line in steps],
        "map_disagreement": {name: map_disagreement(model, train, rows) for name, rows in kinds.items()},
        **cured(steps[-1], float(wrong.mean())),
    }


def certainty(outputs: Outputs) -> dict[str, Float[np.ndarray, " N"]]:
    """Returns the certainty of N predictions: by confidence and, if the method learns it, by its own uncertainty."""
    signs = {"confidence": log_softmax(outputs["logits"]).max(axis=1)}
    return signs | ({OWN: -outputs[OWN][:, 0]} if OWN in outputs else {})


def coverage(right: Bool[np.ndarray, " N"], certain: Float[np.ndarray, " N"]) -> list[float]:
    """Returns the accuracy on the most certain examples, for each of the fractions `KEPT`."""
    ordered = right[np.argsort(-certain, kind="stable")]
    return [float(ordered[: round(share * len(ordered))].mean()) for share in KEPT]


def map_disagreement(model: Trained, source: Source, chosen: Bool[np.ndarray, " N"]) -> float:
    """Returns 1 - the mean correlation of the map of a face with that of its mirror image, mirrored back."""
    rows = np.flatnonzero(chosen)
    few = source.select(rows[np.linspace(0, len(rows) - 1, min(FACES, len(rows))).round().astype(int)])
    faces = explain(model, few)
    mirrored = dataclasses.replace(few, arrays={**few.arrays, "image": transformed(few.pictures(), "flip")})
    return 1 - float(consistency(faces.maps, explain(model, mirrored, faces.classes).maps, "flip").mean())


def cured(last: Mapping[str, float], wrong: float) -> dict[str, dict[str, float | None]]:
    """Returns precision and recall of relabeling and of dropping in the last steps that were logged.

    Args:
        last: the last line of the log of training.
        wrong: the share of wrong labels.
    """
    found = {}
    if "monitor/relabeled" in last:
        right, all_of_them = last["monitor/relabeled_rightly"], last["monitor/relabeled"]
        found["relabeling"] = {"precision": _share(right, all_of_them), "recall": right / wrong}
    if "selected_wrong" in last:
        recall = 1 - last["selected_wrong"]
        found["dropping"] = {"precision": _share(recall * wrong, 1 - last["selected"]), "recall": recall}
    return found


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # the records of the seeds by method


def known(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the scores of `wrong_labels` of each record."""
    return [record["model"] for record in records]


def knowledge_table(runs: Runs) -> list[str]:
    """Returns a Markdown table of these scores by method, means over seeds; empty for true labels."""
    lines = [
        "| method | AUROC of loss | agreed | disputed | of margin | of own uncertainty | relabeled: precision, recall, "
        "% | dropped: precision, recall, % | maps disagree: wrong, right | accuracy of the surest 70 %, by own, % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method, records in runs.items():
        if "model" not in records[0]:
            return []
        found = known(records)
        signs = [_mean(found, "auroc", sign) for sign in ("margin", OWN)]
        aurocs = [_mean(found, name, "loss") for name in ("auroc", "auroc_agreed", "auroc_disputed")] + signs
        cells = [f"{value:.3f}" if value is not None else "" for value in aurocs]
        cells += [_pair(records, name, ("precision", "recall")) for name in ("relabeling", "dropping")]
        disagree = [_mean(records, "map_disagreement", kind) for kind in ("wrong", "right")]
        cells.append(", ".join(f"{value:.2f}" for value in disagree if value is not None))
        surest = [_mean(records, "coverage", sign, KEPT.index(0.7)) for sign in ("confidence", OWN)]
        cells.append(", ".join(f"{100 * value:.1f}" for value in surest if value is not None))
        lines.append(f"| {' | '.join((method, *cells))} |")
    return [*lines, ""]


# What the papers say of their methods: (statement, the method and what it is compared with, the records of the two ->
# a number, what the number must be above).
Claim = tuple[str, tuple[str, str], Callable[[Any, Any], Any], float]
CLAIMS: tuple[Claim, ...] = (
    (
        "RUL: wrong labels have the larger sigma (AUROC)",
        ("rul", "rul"),
        lambda rul, _: _mean(known(rul), "auroc", OWN),
        0.6,
    ),
    (
        "RUL: accuracy rises with every tenth of the test pictures left out by sigma (least rise, points)",
        ("rul", "rul"),
        lambda rul, _: 100 * np.diff(np.mean([record["coverage"][OWN] for record in rul], axis=0)).min(),
        0.0,
    ),
    (
        "SCN: wrong labels have the smaller weight (AUROC)",
        ("scn", "scn"),
        lambda scn, _: _mean(known(scn), "auroc", OWN),
        0.5,
    ),
    (
        "SCN: most labels that are replaced become right (share)",
        ("scn", "scn"),
        lambda scn, _: _mean(scn, "relabeling", "precision"),
        0.5,
    ),
    (
        "EAC: fewer wrong labels are memorized than by cross-entropy (points)",
        ("eac", "cross-entropy"),
        lambda eac, control: 100 * (mean(known(control), "memorized") - mean(known(eac), "memorized")),
        0.0,
    ),
    (
        "EAC: more true classes are recovered than by cross-entropy (points)",
        ("eac", "cross-entropy"),
        lambda eac, control: 100 * (mean(known(eac), "recovered") - mean(known(control), "recovered")),
        0.0,
    ),
    (
        "VAC: maps disagree with the mirror image less than half as much as without consistency (1 - ratio)",
        ("vac", "vac_views"),
        lambda vac, views: 1 - _disagreement(vac) / _disagreement(views),
        0.5,
    ),
)


def _disagreement(records: Sequence[Mapping[str, Any]]) -> float:
    return mean([record["map_disagreement"] for record in records], "right")


def claims_table(columns: Mapping[str, Runs]) -> list[str]:
    """Returns a Markdown table of claims of the papers, with the results of the columns with wrong labels."""
    noisy = {name: runs for name, runs in columns.items() if "model" in next(iter(runs.values()))[0]}
    lines = ["**What the papers say of their methods**", "", f"| statement | above | {' | '.join(noisy)} |"]
    lines.append(f"|---|---|{'---|' * len(noisy)}")
    for statement, (method, other), measure, bound in CLAIMS:
        found = [
            measure(runs[method], runs[other]) if {method, other} <= set(runs) else None for runs in noisy.values()
        ]
        cells = ["" if value is None else f"{value:.2f} {'yes' if value > bound else 'no'}" for value in found]
        lines.append(f"| {statement} | {bound:g} | {' | '.join(cells)} |")
    return [*lines, ""]


def draw(columns: Mapping[str, Runs]) -> bytes:
    """Returns a picture (PNG) with a row for each column with wrong labels: memorized, AUROC, coverage."""
    noisy = {name: runs for name, runs in columns.items() if "model" in next(iter(runs.values()))[0]}
    methods = dict.fromkeys(method for runs in noisy.values() for method in runs)
    colors = dict(zip(methods, itertools.cycle(COLORS)))
    figure = new_figure(1080, 320 * max(1, len(noisy)))
    grid = figure.subplots(max(1, len(noisy)), 3, squeeze=False)
    for (name, runs), (memory, signs, sure) in zip(noisy.items(), grid, strict=False):
        for method, records in runs.items():
            epochs, shares = np.mean([record["memorized_by_epoch"] for record in records], axis=0).T
            quiet(memory, "epoch").plot(epochs, shares, color=colors[method], linewidth=1.2, label=method)
            kept = np.mean([record["coverage"]["confidence"] for record in records], axis=0)
            quiet(sure, "share of the test pictures, the surest").plot(KEPT, kept, color=colors[method], linewidth=1.2)
        for place, (method, records) in enumerate(runs.items()):
            for sign, filled in (("loss", True), (OWN, False)):
                if (value := _mean(known(records), "auroc", sign)) is not None:
                    face = colors[method] if filled else "none"
                    signs.plot(value, place, "o", color=colors[method], markerfacecolor=face)
        quiet(signs, "AUROC of the loss (filled) and of the own uncertainty (open)")
        signs.set_yticks(range(len(runs)), list(runs))
        signs.set_xlim(0.48, 1.0)
        signs.invert_yaxis()
        titles = (f"{name}: wrong labels memorized", "Wrong labels told from right ones", "Accuracy")
        for axes, title in zip((memory, signs, sure), titles, strict=True):
            axes.set_title(title, loc="left", fontsize=9.5)
        for axes in (memory, sure):
            in_percent(axes.yaxis)
        in_percent(sure.xaxis)
        memory.legend(frameon=False, fontsize=7)
    return to_png(figure)


def _mean(records: Sequence[Mapping[str, Any]], *path: Any) -> float | None:
    """Returns the mean over records of a nested value; None where one has none."""
    values: list[Any] = list(records)
    for key in path:
        values = [value[key] if isinstance(value, list) else (value or {}).get(key) for value in values]
        if None in values:
            return None
    return float(np.mean(values))


def _pair(records: Sequence[Mapping[str, Any]], name: str, keys: Sequence[str]) -> str:
    values = [_mean(records, name, key) for key in keys]
    return ", ".join(f"{100 * value:.0f}" for value in values if value is not None)
