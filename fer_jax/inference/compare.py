"""`fer-jax compare`: runs on one page and in one table, with paired differences on the same examples."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Bool, Float, Int

from fer_jax.config.fields import leaves
from fer_jax.config.protocol import ALL
from fer_jax.errors import UserError, writing
from fer_jax.evaluation.metrics import AFFECT_SCORES
from fer_jax.evaluation.predictions import csv_text
from fer_jax.parsing import read_lines, read_text, table_rows
from fer_jax.report.images import chart
from fer_jax.report.learning import accuracy_chart, curves_of
from fer_jax.report.markup import Html, element, figure_card, percent, plain, section, table
from fer_jax.report.scores import SCORES as TITLES
from fer_jax.report.write import check_free, write_page
from fer_jax.runs.results import TABLE
from fer_jax.runs.workdir import read_results, stored_config
from fer_jax.storage import write_whole

DRAWS = 2000  # of the bootstrap
CELLS_AT_ONCE = 1 << 24  # resampled examples in memory
SCORES = ("accuracy", "mean_recall")
IGNORED = ("seed", "data.data_dir", "data.manual_dir", "experiment", "variant")  # fields whose difference says nothing


@dataclasses.dataclass(frozen=True)
class Compared:
    """A run, or several seeds of one.

    Attributes:
        name: its folder, without the path that all runs share.
        results: its results.json.
        fields: of its config, by path.
        examples: the scored examples: the data set's digest, and source and row of each.
        truth: int [N], the true classes.
        right: bool [S, N], for each seed whether the example is classified correctly.
        curve: (epochs, accuracy on the validation examples) of its first seed; None where there is none.
    """

    name: str
    results: dict[str, Any]
    fields: dict[str, Any]
    examples: tuple[str, tuple[str, ...]]
    truth: Int[np.ndarray, " N"]
    right: Bool[np.ndarray, "S N"]
    curve: tuple[np.ndarray, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Difference:
    """The score of `second` minus that of `first`, with its 95 % interval."""

    first: str
    second: str
    score: str
    difference: float
    low: float
    high: float


def compare(paths: Sequence[epath.Path], folder: epath.Path) -> epath.Path:
    """Compares finished runs in `index.html`, `scores.csv` and `differences.csv`; returns the path of the page.

    Raises:
        UserError: for fewer than two runs, an unfinished run, or a run that predicts no classes, and if `index.html`
            is a page that fer_jax did not write.
    """
    if len(paths) < 2:
        raise UserError("give at least two work directories to compare")
    check_free(folder)
    runs = [read_run(path, name) for path, name in zip(paths, short_names(paths), strict=True)]
    pairs = [(a, b) for a, b in itertools.combinations(runs, 2) if a.examples == b.examples]
    found = [difference for a, b in pairs for difference in differences(a, b)]
    lines = [["first", "second", "score", "difference", "low", "high"]]
    lines += [[d.first, d.second, d.score, *(f"{v:.6f}" for v in (d.difference, d.low, d.high))] for d in found]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "scores.csv", csv_text(_score_lines(runs)))
        write_whole(folder / "differences.csv", csv_text(lines))
        body = [
            element("h1", "Comparison"),
            _scores_section(runs),
            _differences_section(runs, found),
            _curves_section(runs),
        ]
        return write_page(folder, " · ".join(run.name for run in runs), [*body, _config_section(runs)])


def short_names(paths: Sequence[epath.Path]) -> list[str]:
    """Returns the paths without the folders that all of them share."""
    parts = [path.parts for path in paths]
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return ["/".join(p[shared:]) for p in parts]


def read_run(path: epath.Path, name: str) -> Compared:
    """Reads a finished run, or several seeds of one."""
    if not path.is_dir():
        raise UserError(f"there is no work directory {path}")
    results = read_results(path)
    if results is None:
        raise UserError(f"{path} is not finished: train it first, or give another run")
    config = stored_config(path)
    if "measures" in results or config.fold == ALL:
        kind = "predicts no classes" if "measures" in results else "holds a run for every fold"
        raise UserError(f"{path} {kind}: runs are compared by the examples that they classify correctly")
    members = [path / seed["folder"] for seed in results["seeds"]] if "seeds" in results else [path]
    tables = [_predictions(member / TABLE) for member in members]
    if any(found[:2] != tables[0][:2] for found in tables):
        raise UserError(f"the seeds of {path} were scored on different examples: evaluate them again")
    curve = curves_of(read_lines(members[0] / "metrics.jsonl"), "validation").get("accuracy")
    truths, classes = tables[0][1], list(results["classes"])
    return Compared(
        name=name,
        results=results,
        fields={field: value for field, value in leaves(config, ()) if not field.startswith(IGNORED)},
        examples=(results.get("data_digest", ""), tables[0][0]),
        truth=np.array([classes.index(truth) for truth in truths]),
        right=np.array([[t == p for t, p in zip(truths, predicted, strict=True)] for _, _, predicted in tables]),
        curve=curve,
    )


def differences(first: Compared, second: Compared, seed: int = 0) -> list[Difference]:
    """Returns the differences of accuracy and mean recall of two runs scored on the same examples.

    The 95 % intervals are from the paired bootstrap: each draw resamples examples with replacement, the same ones for
    both runs, and, if a run has several seeds, also its seeds (Davison and Hinkley 1997, section 3.8).
    """
    count, generator = len(first.truth), np.random.default_rng(seed)
    drawn, at_once = [], max(1, CELLS_AT_ONCE // count)
    for begin in range(0, DRAWS, at_once):
        draws = min(at_once, DRAWS - begin)
        times = generator.multinomial(count, np.full(count, 1 / count), size=draws)
        shares = [_of_drawn_seeds(run.right, draws, generator) for run in (first, second)]
        drawn.append(_gains(shares[1] - shares[0], times, first.truth))
    lows, highs = np.percentile(np.concatenate(drawn, axis=1), (2.5, 97.5), axis=1).tolist()
    gap = second.right.mean(axis=0) - first.right.mean(axis=0)
    gains = _gains(gap[None], np.ones((1, count), int), first.truth)[:, 0].tolist()
    return [Difference(first.name, second.name, *row) for row in zip(SCORES, gains, lows, highs, strict=True)]


def _gains(
    gap: Float[np.ndarray, "#D N"], times: Int[np.ndarray, "D N"], truth: Int[np.ndarray, " N"]
) -> Float[np.ndarray, "2 D"]:
    """Returns the gain in accuracy and mean recall, where each example counts so many `times`."""
    by_class = np.eye(truth.max() + 1)[truth]
    total = times @ by_class  # [D, C]
    recall = np.divide((gap * times) @ by_class, total, out=np.zeros(total.shape), where=total > 0)
    return np.stack([(gap * times).sum(axis=1) / times.sum(axis=1), recall.sum(axis=1) / (total > 0).sum(axis=1)])


def _of_drawn_seeds(
    right: Bool[np.ndarray, "S N"], draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "#D N"]:
    """Returns for each draw the share of seeds, drawn with replacement, that classify each example correctly."""
    count = len(right)
    if count == 1:
        return right.astype(np.float32)
    times = generator.multinomial(count, np.full(count, 1 / count), size=draws)
    return (times @ right.astype(np.float32)) / count


def _predictions(path: epath.Path) -> tuple[tuple[str, ...], list[str], list[str]]:
    """Reads a prediction table: which examples (source and row), their true and their predicted classes."""
    advice = "evaluate the run again, which writes it"
    text = read_text(path, advice)
    header, *rows = (fields for _, fields in table_rows(io.StringIO(text, newline=""), path, advice))
    rows = [dict(zip(header, fields, strict=False)) for fields in rows]
    if missing := {"source", "row", "frame", "truth", "expression"} - set(rows[0] if rows else ()):
        raise UserError(f"{path} has no row, or no column {min(missing)}: evaluate the run again, which writes it")
    keys = tuple(f"{row['source']} {row['row']} {row['frame']}" for row in rows)
    return keys, [row["truth"] for row in rows], [row["expression"] for row in rows]


def _score_lines(runs: Sequence[Compared]) -> list[list[Any]]:
    names = ("dataset", "split", "num_examples", "params", *SCORES, "macro_f1", "nll", "ece", *_affect(runs))
    lines: list[list[Any]] = [["run", *names]]
    for run in runs:
        lines.append([run.name, *(run.results.get(name, "") for name in names)])
    return lines


def _affect(runs: Sequence[Compared]) -> list[str]:
    """Returns the scores of valence and arousal that any of the runs has."""
    return [name for name in AFFECT_SCORES if any(name in run.results for run in runs)]


def _scores_section(runs: Sequence[Compared]) -> Html:
    rows = []
    for run in runs:
        results = run.results
        cells = [f"{results['dataset']} {results['split']}", f"{results['num_examples']:,}", f"{results['params']:,}"]
        for score in SCORES:
            interval = results.get("interval", {}).get(score) or results.get(f"{score}_interval")
            between = f" ({percent(interval[0])} to {percent(interval[1])})" if interval else ""
            cells.append(percent(results[score]) + between)
        numbers = [(results.get(name), ".3f") for name in _affect(runs)] + [(results.get("training_seconds"), ",.0f")]
        rows.append((run.name, *cells, *(plain(value) if value is None else format(value, f) for value, f in numbers)))
    affect = [TITLES[name] for name in _affect(runs)]
    head = ("Run", "Scored on", "Examples", "Parameters", "Accuracy", "Mean recall", *affect, "Seconds of training")
    text = "Each score with its 95 % interval: over examples for a single run, of the mean for several seeds."
    return section("Scores", text, element("div", table(rows, head=head), class_="card wide"))


def _differences_section(runs: Sequence[Compared], found: Sequence[Difference]) -> Html:
    rows = []
    for d in found:
        clear = "yes" if d.low > 0 or d.high < 0 else "no"
        points = (f"{100 * value:+.2f}" for value in (d.difference, d.low, d.high))
        rows.append((f"{d.second} minus {d.first}", d.score.replace("_", " "), *points, clear))
    head = ("Runs", "Score", "Difference, points", "from", "to", "Excludes zero")
    text = (
        "Paired by example, with the 95 % interval of a bootstrap over examples and, where there are several, seeds. "
    )
    if len(found) < len(SCORES) * len(runs) * (len(runs) - 1) // 2:
        text += "Runs that were scored on different examples are not paired."
    return section("Differences", text, element("div", table(rows, head=head), class_="card wide"))


def _curves_section(runs: Sequence[Compared]) -> Html:
    curves = {run.name: run.curve for run in runs if run.curve is not None}
    if not curves:
        return Html()
    image = chart(accuracy_chart(curves, {}), "Validation accuracy over epochs")
    card = figure_card("Validation accuracy", "At every evaluation, of the first seed.", image, wide=True)
    return section("Learning", "All runs on one axis.", card)


def _config_section(runs: Sequence[Compared]) -> Html:
    """The fields in which the configs differ."""
    names = sorted(set().union(*(run.fields for run in runs)))
    rows = []
    for name in names:
        values = [run.fields.get(name) for run in runs]
        if len({json.dumps(value, default=str) for value in values}) > 1:
            rows.append((name, *(plain(value) for value in values)))
    head = ("Field", *(run.name for run in runs))
    return (
        section("Config", "Fields that differ.", element("div", table(rows, head=head), class_="card wide"))
        if rows
        else Html()
    )
