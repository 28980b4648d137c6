"""The sections on folds and on seeds: the scores of each, their mean, and links to their own reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fer_jax.report.markup import Html, element, percent, plain, section

TITLES = {"accuracy": "Accuracy", "mean_recall": "Mean recall", "macro_f1": "Macro F1", "nll": "NLL", "ece": "ECE"}
NOT_SHARES = frozenset({"nll"})


def folds(results: Mapping[str, Any]) -> Html:
    """A table with a row for each fold, and the mean and standard deviation of each column."""
    unit = results.get("unit", "images")
    rows = [(fold["fold"], fold["folder"], f"{fold['num_examples']:,}", fold) for fold in results["folds"]]
    table = _table(results, ("Fold", unit), rows, (("Mean", results["mean"]), ("Standard deviation", results["std"])))
    explanation = (
        f"The scores above are of all {results['num_examples']:,} {unit} together. Here are those of each fold, and "
        "their mean, which many papers report instead: the two differ where folds differ in size."
    )
    return section("Fold by fold", explanation, table)


def seeds(results: Mapping[str, Any]) -> Html:
    """A table with a row for each seed, and the mean, its interval and the standard deviation of each column."""
    rows = [(seed["seed"], seed["folder"], f"{seed.get('best_step', '')}", seed) for seed in results["seeds"]]
    low, high = ({name: pair and pair[end] for name, pair in results["interval"].items()} for end in (0, 1))
    below = (
        ("Mean", results["mean"]),
        ("95 % interval of the mean, from", low),
        ("to", high),
        ("Standard deviation", results["std"]),
    )
    explanation = (
        f"{len(results['seeds'])} runs that differ in nothing but their seed: first parameters, order of the images, "
        "augmentation. The interval is Student's: where the mean of ever more seeds would be, on these examples. A "
        "single run falls about a standard deviation from it; the pages of the seeds show theirs in detail."
    )
    return section("Seed by seed", explanation, _table(results, ("Seed", "selected at step"), rows, below))


def _table(
    results: Mapping[str, Any],
    head: tuple[str, str],
    rows: Iterable[tuple[Any, str, str, Mapping[str, Any]]],
    below: Iterable[tuple[str, Mapping[str, Any]]],
) -> Html:
    """A table of scores: rows of (name, folder with a report, fact, scores), and lines (title, scores) below them."""
    titles = results.get("measures", TITLES)

    def cells(scores: Mapping[str, Any]) -> Iterator[Html]:
        for name in titles:
            as_it_is = "measures" in results or name in NOT_SHARES
            value = scores[name]
            yield element("td", "" if value is None else plain(value) if as_it_is else percent(value))

    named, fact_of = head
    drawn = [
        element(
            "tr",
            element("th", named, scope="col"),
            element("td", fact_of),
            *(element("td", title) for title in titles.values()),
        )
    ]
    for name, folder, fact, scores in rows:
        link = element("a", str(name), href=f"../{folder}/report/index.html")
        drawn.append(element("tr", element("th", link, scope="row"), element("td", fact), *cells(scores)))
    for title, scores in below:
        drawn.append(element("tr", element("th", title, scope="row"), element("td"), *cells(scores)))
    return element("div", element("table", *drawn, class_="facts-table"), class_="card wide")
