"""The section on cross-validation: the scores of every fold, their mean, and links to the folds' own reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fer_jax.evaluation.report.markup import Html, element, percent, plain, section

TITLES = {"accuracy": "Accuracy", "mean_recall": "Mean recall", "macro_f1": "Macro F1", "nll": "NLL", "ece": "ECE"}
NOT_SHARES = frozenset({"nll"})


def folds(results: Mapping[str, Any]) -> Html:
    """A table with a row for each fold, and the mean and standard deviation of each column."""
    titles = results.get("measures", TITLES)
    unit = results.get("unit", "images")

    def shown(name: str, value: float) -> str:
        return plain(value) if "measures" in results or name in NOT_SHARES else percent(value)

    rows = [
        element(
            "tr", element("th", "Fold", scope="col"), element("td", unit), *(element("td", t) for t in titles.values())
        )
    ]
    for fold in results["folds"]:
        link = element("a", str(fold["fold"]), href=f"../{fold['folder']}/report/index.html")
        cells = (element("td", shown(name, fold[name])) for name in titles)
        rows.append(element("tr", element("th", link, scope="row"), element("td", f"{fold['num_examples']:,}"), *cells))
    for title, key in (("Mean", "mean"), ("Standard deviation", "std")):
        cells = (element("td", shown(name, results[key][name])) for name in titles)
        rows.append(element("tr", element("th", title, scope="row"), element("td"), *cells))
    explanation = (
        f"The scores above are of all {results['num_examples']:,} {unit} together. Here are those of each fold, and "
        "their mean, which many papers report instead: the two differ where folds differ in size."
    )
    table = element("table", *rows, class_="facts-table")
    return section("Fold by fold", explanation, element("div", table, class_="card wide"))
