"""The top of a report: what was scored, the result in words, and the scores as cards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fer_jax.report.markup import Html, duration, element, join, percent, plain, score_card

SEED_CARDS = {"accuracy": "Accuracy", "mean_recall": "Mean recall", "macro_f1": "Macro F1", "nll": "NLL"}


def title(results: Mapping[str, Any]) -> str:
    """The experiment's name."""
    return str(results.get("experiment") or results.get("method") or "Report")


def scored_on(results: Mapping[str, Any]) -> str:
    """Data set and split."""
    return " ".join(str(results[key]) for key in ("dataset", "split") if key in results) or "evaluation"


def header(results: Mapping[str, Any]) -> Html:
    """Title, the result in words, and the facts of the run."""
    variant = results.get("variant")
    parts = [
        element("p", "fer_jax report", class_="eyebrow"),
        element("h1", title(results), element("span", f" · {variant}") if variant else ""),
        element("p", *_in_words(results), class_="lead"),
        element("div", *(element("span", fact) for fact in _facts(results)), class_="facts"),
    ]
    if "protocol" in results:
        parts.insert(3, element("p", results["protocol"], class_="protocol"))
    if results.get("selection", {}).get("rule") == "best_on_test":
        warning = (
            "These weights were selected on the test split itself (selection.rule = best_on_test), as in "
            "much of the literature. That flatters them: do not compare with scores selected on validation."
        )
        parts.append(element("p", warning, class_="warning"))
    return join(parts)


def unit(results: Mapping[str, Any]) -> str:
    """What was scored: images or clips."""
    return results.get("unit", "images")


def _in_words(results: Mapping[str, Any]) -> list[object]:
    """The result as sentences a newcomer understands."""
    if "seeds" in results:
        return _seeds_in_words(results)
    if "measures" in results:
        name, title = next(iter(results["measures"].items()))
        return [f"{title}: ", element("b", f"{results[name]:.2f}"), ", the mean over all images."]
    confusion, classes = np.asarray(results["confusion"]), results["classes"]
    total, right = int(confusion.sum()), int(np.trace(confusion))
    said: list[object] = [element("b", f"{right:,} of {total:,}"), f" {unit(results)} are named correctly. "]
    found = {c: recall for c, recall in enumerate(results["recall"]) if recall is not None}
    if len(found) < 2 or right == total:
        return said
    best, worst = max(found, key=found.__getitem__), min(found, key=found.__getitem__)
    slips = confusion * (1 - np.eye(len(classes), dtype=int))
    truth, seen = np.unravel_index(slips.argmax(), slips.shape)
    times = int(slips[truth, seen])
    return [
        *said,
        "Easiest is ",
        element("b", classes[best]),
        f" ({percent(found[best], 0)} found), hardest ",
        element("b", classes[worst]),
        f" ({percent(found[worst], 0)}). The commonest slip is to take ",
        element("b", classes[truth]),
        " for ",
        element("b", classes[seen]),
        f" ({'once' if times == 1 else 'twice' if times == 2 else f'{times:,} times'}).",
    ]


def _seeds_in_words(results: Mapping[str, Any]) -> list[object]:
    """The mean of the first score over the seeds, and its interval."""
    measures = results.get("measures", {})
    name = next(iter(measures or ("accuracy",)))
    written = plain if measures else percent
    low, high = results["interval"][name]
    what = measures[name] if measures else f"of the {unit(results)} are named correctly"
    return [
        element("b", written(results["mean"][name])),
        f" {what}, the mean of {len(results['seeds'])} seeds. With more seeds the mean would be between "
        f"{written(low)} and {written(high)}, with 95 % confidence.",
    ]


def _facts(results: Mapping[str, Any]) -> list[str]:
    """What else one wants to know at a glance; each only if it is known."""
    facts = [scored_on(results), f"{results['num_examples']:,} {unit(results)}", f"{len(results['classes'])} classes"]
    hidden = ("seed",) if "seeds" in results else ()
    written = {
        "steps": lambda steps: f"{steps:,} steps",
        "epochs": lambda epochs: f"{epochs:.4g} epochs",
        "seeds": lambda seeds: f"{len(seeds)} seeds",
        "seed": lambda seed: f"seed {seed}",
        "params": lambda params: f"{params / 1e6:.2f} M parameters",
        "wall_seconds": duration,
        "images_per_second": lambda speed: f"{speed:,.0f} images/s",
        "label_noise": lambda noise: f"{percent(noise['changed_share'])} of the training labels changed",
        "device": str,
    }
    return facts + [write(results[key]) for key, write in written.items() if key in results and key not in hidden]


def cards(results: Mapping[str, Any], mean_confidence: float) -> Html:
    """The scores, each with what to hold it against.

    Args:
      results: with all that `classification_metrics` returns.
      mean_confidence: of the predicted classes.
    """
    classes, support = results["classes"], results["support"]
    commonest = int(np.argmax(support))
    left_out = results["classes_without_examples"]
    mean_recall_note = f"Chance: {percent(1 / (len(classes) - len(left_out)))}."
    if left_out:
        mean_recall_note += f" Left out, having no examples: {', '.join(left_out)}."
    drawn = [
        _rate(
            "Accuracy",
            results,
            "accuracy",
            f"Always saying {classes[commonest]}: {percent(support[commonest] / sum(support))}.",
        ),
        _rate("Mean recall", results, "mean_recall", mean_recall_note),
        _rate("Macro F1", results, "macro_f1", "Rare classes count as much as common ones."),
        score_card("Calibration error", f"{100 * results['ece']:.1f}", "%", _verdict(results, mean_confidence)),
        score_card(
            "Negative log-likelihood",
            f"{results['nll']:.3f}",
            "nats",
            f"Per {unit(results)[:-1]}; knowing nothing scores {math.log(len(classes)):.3f}.",
        ),
    ]
    if "kl_to_votes" in results:
        note = "Divergence of the predictions from the annotators' votes."
        drawn.append(score_card("KL to votes", f"{results['kl_to_votes']:.3f}", "nats", note))
    else:
        wrong = results["num_examples"] - int(np.trace(results["confusion"]))
        note = f"Of {results['num_examples']:,} {unit(results)}; the boldest are shown below."
        drawn.append(score_card("Mistakes", f"{wrong:,}", "", note if wrong else "Not one."))
    if "plain" in results:
        note = f"The other scores are of magnified and mirrored views too; this one is of the {unit(results)} alone."
        drawn.insert(1, _rate("Accuracy, plain", results["plain"], "accuracy", note))
    if "occluded" in results:
        lost = 100 * results["occluded"]["accuracy_lost"]
        note = f"{abs(lost):.1f} points {'lost' if lost >= 0 else 'won'} on the same images behind objects."
        drawn.insert(1, _rate("Behind objects", results["occluded"], "accuracy", note))
    return element("div", *drawn, class_="headline")


def measure_cards(results: Mapping[str, Any]) -> Html:
    """The measures of a method that predicts no classes."""
    last = results.get("selection", {}).get("last", {}).get("test") or {}
    drawn = []
    for name, title in results["measures"].items():
        what, _, unit = title.partition(", ")
        note = f"The last step's weights: {last[name]:.2f}." if last.get(name) is not None else "Mean over all images."
        drawn.append(score_card(what, f"{results[name]:.2f}", unit, note))
    return element("div", *drawn, class_="headline")


def seed_cards(results: Mapping[str, Any]) -> Html:
    """The mean of each score over the seeds, with its interval."""
    measures = results.get("measures")
    drawn = []
    for name, title in (measures or SEED_CARDS).items():
        mean, std, interval = (results[key][name] for key in ("mean", "std", "interval"))
        if mean is None:
            continue
        if measures or name == "nll":
            what, _, unit = title.partition(", ")
            note = f"95 % interval {interval[0]:.3f} to {interval[1]:.3f}. Standard deviation {std:.3f}."
            drawn.append(score_card(what, f"{mean:.3f}", unit, note))
        else:
            note = f"Standard deviation over the seeds: {100 * std:.2f} points."
            drawn.append(_rate(title, {name: mean, f"{name}_interval": interval}, name, note))
    return element("div", *drawn, class_="headline")


def _rate(title: str, results: Mapping[str, Any], name: str, note: str) -> Html:
    """A score in [0, 1] with its interval, if it has one."""
    interval = results.get(f"{name}_interval")
    if interval:
        note = f"{percent(0.95, 0)} interval {100 * interval[0]:.1f} to {percent(interval[1])}. {note}"
    return score_card(title, f"{100 * results[name]:.1f}", "%", note, at=results[name], interval=interval)


def _verdict(results: Mapping[str, Any], mean_confidence: float) -> str:
    excess = mean_confidence - results["accuracy"]
    if abs(excess) < 0.005:
        return "On average as sure as it is right."
    return f"On average {100 * abs(excess):.1f} points {'too sure' if excess > 0 else 'too modest'} of itself."
