"""The section of a model that was scored on degraded copies of the images too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fer_jax.report.markup import Html, element, join, percent, section

COLUMNS = ("images", "accuracy", "points lost", "mean recall", "NLL")


def degraded(results: Mapping[str, Any]) -> Html:
    """A table with a row for each degradation, the images as they are first; nothing where there are none."""
    if not results.get("degraded"):
        return Html()
    rows = {"as they are": results, **results["degraded"]}
    lines = [element("tr", *(element("th", title, scope="col") for title in COLUMNS))]
    for name, found in rows.items():
        lost = f"{100 * found['accuracy_lost']:.1f}" if "accuracy_lost" in found else ""
        values = (percent(found["accuracy"]), lost, percent(found["mean_recall"]), f"{found['nll']:.3f}")
        cells = join(element("td", value) for value in values)
        lines.append(element("tr", element("th", name, scope="row"), cells))
    explanation = (
        "The same images, each made worse in one way. What a level means stands at the top of "
        "fer_jax/data/corrupt/degradation.py."
    )
    table = element("table", *lines, class_="facts-table columns")
    return section("On worse images", explanation, element("div", table, class_="card"))
