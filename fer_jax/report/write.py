"""Writes a run's report: one HTML page that shows what was learned, how well, and where it goes wrong."""

from __future__ import annotations

import html
import importlib.resources
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from fer_jax.errors import UserError
from fer_jax.report import scores, sections
from fer_jax.report.circumplex import circumplex
from fer_jax.report.inspection import Inspection
from fer_jax.report.learning import learning
from fer_jax.report.looking import Looks, looking
from fer_jax.report.markup import Html, element, flatten, join, table
from fer_jax.report.method_sections import method_sections
from fer_jax.report.sections import Predictions, Profile, Samples
from fer_jax.storage import write_whole

GENERATOR = b'<meta name="generator" content="fer_jax">'  # in every page


def write_report(
    folder: epath.Path,
    *,
    results: dict[str, Any],
    history: list[dict[str, Any]],
    predictions: Predictions | None,
    samples: Samples | None = None,
    profiles: Mapping[str, Profile] | None = None,
    inspection: Inspection | None = None,
    look: Callable[[], Looks | None] | None = None,
) -> epath.Path:
    """Writes `folder/index.html`, a page with all its pictures inside.

    Args:
        folder: created if missing; any path object with pathlib's methods.
        results: the content of results.json. Its `config`, if any, is listed under the details.
        history: the lines of metrics.jsonl; empty if there was no training.
        predictions: on the split that `results` describes, in order. None for a sweep over seeds, where each seed has a
            page of its own, and for a method that predicts no classes; `results` then has `measures`.
        samples: training images to show.
        profiles: by name, values to compare between classes.
        inspection: the method's intermediates on a few examples.
        look: makes maps of where the model looks.

    Returns:
        The path of index.html.
    """
    trained = scores.sweep(results) if "folds" in results else learning(results, history)
    inside = method_sections(inspection)
    seen = sections.training_images(results["classes"], samples)
    if "seeds" in results:
        body = [scores.mean_cards(results), scores.sweep(results)]
    elif predictions is None:
        body = [scores.mean_cards(results), trained, inside, seen]
    else:
        body = [
            scores.classifier_cards(results, float(predictions.confidence.mean())),
            trained,
            sections.classes(results) if "confusion" in results else Html(),
            sections.calibration(results, predictions) if "reliability" in results else Html(),
            circumplex(results, predictions),
            sections.mistakes(results, predictions),
            sections.wrong_labels(results.get("label_noise", {})),
            scores.degraded(results),
            looking(look() if look else None),
            inside,
            sections.profile_tables(results["classes"], predictions.labels, profiles or {}),
            seen,
        ]
    title = f"{scores.experiment(results)} · {scores.scored_on(results)}"
    return write_page(folder, title, [scores.header(results), *body, _details(results)])


def check_free(folder: epath.Path) -> None:
    """Raises UserError if `folder/index.html` is a page that fer_jax did not write."""
    index = folder / "index.html"
    if index.exists() and GENERATOR not in index.read_bytes():
        raise UserError(f"{index} was not written by fer_jax: move it away, or give another folder")


def write_page(folder: epath.Path, title: str, body: Sequence[Html]) -> epath.Path:
    """Writes `folder/index.html` with these parts; returns its path."""
    template = importlib.resources.files("fer_jax.report").joinpath("page.html").read_text(encoding="utf-8")
    page = string.Template(template).substitute(title=html.escape(title), body=join(body))
    index = folder / "index.html"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(index, page)
    return index


def _details(results: Mapping[str, Any]) -> Html:
    """Everything else, in tables that open on a click."""
    separate = {"Config": results.get("config"), "Versions": results.get("versions")}
    rest = {key: value for key, value in results.items() if key not in ("config", "versions", "reliability")}
    folded = {"All scores and facts": rest} | separate
    return join(
        element("details", element("summary", title), table(flatten(tree), class_="details"), class_="card")
        for title, tree in folded.items()
        if tree
    )
