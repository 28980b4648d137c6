"""The section on training: the curves of metrics.jsonl, with the selected step marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.report import curves
from fer_jax.report.markup import Html, element, figure_card, percent, plain, section
from fer_jax.report.pictures import Book

Lines = Sequence[Mapping[str, Any]]


def learning(book: Book, results: Mapping[str, Any], history: Lines) -> Html:
    """Loss terms, accuracies, and whatever else was logged."""
    train, evaluated = _by_step(history, "train"), _by_step(history, "validation")
    if not train and not evaluated:
        return section("Learning", "No training log was given: this report scores stored weights.")
    axis = "epoch" if all("epoch" in line for line in (*train, *evaluated)) else "step"
    losses, signals = _training_curves(train, axis)
    measured = [name for name in results.get("measures", ()) if name in _names(evaluated)]
    signals |= {f"validation/{name}": _curve(evaluated, axis, name) for name in measured}
    cards = []
    chosen, mark = _selected(results, evaluated, axis)
    if losses:
        alt = "Loss terms over training: " + ", ".join(
            f"{name} from {plain(float(value[0]))} to {plain(float(value[-1]))}" for name, (_, value) in losses.items()
        )
        image = book.chart("loss", curves.loss_curves(losses, axis, mark), alt)
        cards.append(figure_card("Loss", "Each term, and their weighted sum in black, on a log scale.", image))
    accuracies = _accuracies(train, evaluated, axis, results)
    if accuracies:
        value = chosen.get("accuracy") if chosen else None
        words = f"step {plain(results.get('selection', {}).get('best_step'))}"
        if value is not None:
            words += f": {100 * value:.1f}\xa0%"
        selected = None if mark is None else (mark, value, words)
        alt = "Accuracy over training: " + ", ".join(
            f"{name} ends at {percent(float(value[-1]))}" for name, (_, value) in accuracies.items()
        )
        image = book.chart("accuracy", curves.accuracy_curves(accuracies, axis, selected), alt)
        explanation = "The ring marks the step whose weights are scored." if chosen else "At every evaluation."
        cards.append(figure_card("Accuracy", explanation, image))
    if signals:
        cards.append(_signals(book, signals, axis))
    return section("Learning", _which_weights(results), element("div", *cards, class_="pair"))


def _signals(book: Book, signals: Mapping[str, curves.Curve], axis: str) -> Html:
    """Small multiples of everything that has no chart of its own."""
    charts = []
    for place, (name, curve) in enumerate(signals.items()):
        alt = f"{name} from {plain(float(curve[1][0]))} to {plain(float(curve[1][-1]))}"
        image = book.chart(f"signal_{place}", curves.signal_curve(curve, axis), alt)
        charts.append(element("figure", element("figcaption", name.replace("/", "/\N{ZERO WIDTH SPACE}")), image))
    return element("div", element("h3", "Also watched"), element("div", *charts, class_="small"), class_="card wide")


def _training_curves(train: Lines, axis: str) -> tuple[dict[str, curves.Curve], dict[str, curves.Curve]]:
    """Splits what training logged into loss terms fit for a log scale and all the rest but the accuracy."""
    losses, signals = {}, {}
    for name in _names(train):
        curve = _curve(train, axis, name)
        if name.startswith("loss/") and (curve[1] > 0).any() and not (curve[1] < 0).any():
            losses[name.removeprefix("loss/")] = curve
        elif name != "accuracy":
            signals[name] = curve
    return losses, signals


def _accuracies(train: Lines, evaluated: Lines, axis: str, results: Mapping[str, Any]) -> dict[str, curves.Curve]:
    held_out = "test" if results.get("selection", {}).get("rule") == "best_on_test" else "validation"
    found = {"train": _curve(train, axis, "accuracy")} if "accuracy" in _names(train) else {}
    for name, label in (("accuracy", held_out), ("mean_recall", f"{held_out}, mean recall")):
        if name in _names(evaluated):
            found[label] = _curve(evaluated, axis, name)
    return found


def _selected(results: Mapping[str, Any], evaluated: Lines, axis: str) -> tuple[Mapping[str, Any] | None, float | None]:
    """The evaluation at the selected step and its position; None where unknown."""
    step = results.get("selection", {}).get("best_step")
    chosen = next((line for line in evaluated if line["step"] == step), None)
    return chosen, chosen[axis] if chosen else step if axis == "step" else None


def _which_weights(results: Mapping[str, Any]) -> str:
    """Says which step is scored, why that one, and what the last one would have scored."""
    selection = results.get("selection", {})
    if selection.get("best_step") is None:
        return "From the first step to the last."
    metric, on = selection.get("metric", "score"), selection.get("on", "the validation split")
    rule = str(selection.get("rule", "not recorded"))
    why = {
        "best_validation": f"the best {metric} on {on}",
        "best_on_test": f"the best {metric} on the test split",
    }
    text = f"The weights scored here are those of step {plain(selection['best_step'])}"
    text += ", the last." if rule == "last" else f", chosen for {why.get(rule, f'the rule {rule}')}."
    last = selection.get("last") or {}
    accuracy = (last.get("test") or last).get("accuracy")
    if rule != "last" and accuracy is not None:
        text += f" Those of the last step would reach {percent(accuracy)} here."
    return text


def _by_step(history: Lines, kind: str) -> list[Mapping[str, Any]]:
    """Lines of one kind in order of steps; of a step logged twice, the later line."""
    lines = {line["step"]: line for line in history if line.get("kind") == kind}
    return [lines[step] for step in sorted(lines)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _names(lines: Lines) -> list[str]:
    """Names under which any line holds a finite number, in order of appearance."""
    seen = {name: None for line in lines for name, value in line.items() if _is_number(value)}
    return [name for name in seen if name not in ("step", "epoch")]


def _curve(lines: Lines, axis: str, name: str) -> curves.Curve:
    """Positions and finite values of one logged quantity, of which there must be one."""
    points = [(line[axis], line[name]) for line in lines if _is_number(line.get(name))]
    at, value = zip(*points, strict=True)
    return np.asarray(at, np.float64), np.asarray(value, np.float64)
