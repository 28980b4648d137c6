"""The scores of a report: the header with the result in words, a card per score, and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.errors import some
from fer_jax.evaluation.results import never_recognized
from fer_jax.report.markup import Html, duration, element, join, percent, section, table

# Title and unit of each score; what is in % is stored as a share.
SCORES = {
    "accuracy": "Accuracy, %",
    "mean_recall": "Mean recall, %",
    "macro_f1": "Macro F1, %",
    "ece": "Calibration error, %",
    "nll": "Negative log-likelihood, nats",
    "coverage": "Coverage, %",
    "valence_ccc": "Valence CCC",
    "arousal_ccc": "Arousal CCC",
    "valence_rmse": "Valence RMSE",
    "arousal_rmse": "Arousal RMSE",
    "kl_to_votes": "KL to votes, nats",
    "ece_to_votes": "Calibration error to votes, %",
    "chebyshev_to_votes": "Chebyshev distance to votes",
    "clark_to_votes": "Clark distance to votes",
    "canberra_to_votes": "Canberra distance to votes",
    "cosine_to_votes": "Cosine with votes",
    "intersection_to_votes": "Intersection with votes",
}
# Facts of a run for the header, if they are known.
FACTS: Mapping[str, Callable[[Any], str]] = {
    "objective": str,
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


def experiment(results: Mapping[str, Any]) -> str:
    """The name of the experiment."""
    return str(results.get("experiment") or results.get("method") or "Report")


def scored_on(results: Mapping[str, Any]) -> str:
    """Data set and split."""
    return " ".join(str(results[key]) for key in ("dataset", "split") if key in results) or "evaluation"


def examples(results: Mapping[str, Any]) -> str:
    """What was scored: images or clips."""
    return results.get("unit", "images")


def header(results: Mapping[str, Any]) -> Html:
    """The experiment, its result in words, and the facts of the run."""
    variant = results.get("variant")
    facts = [scored_on(results), f"{results['num_examples']:,} {examples(results)}"]
    facts.append(f"{len(results['classes'])} classes")
    hidden = "seed" if "seeds" in results else None
    facts += [write(results[name]) for name, write in FACTS.items() if name in results and name != hidden]
    parts = [
        element("p", "fer_jax report", class_="eyebrow"),
        element("h1", experiment(results), element("span", f" · {variant}") if variant else ""),
        element("p", *_in_words(results), class_="lead"),
    ]
    if "protocol" in results:
        parts.append(element("p", results["protocol"], class_="protocol"))
    if sentence := never_recognized(results):
        parts.append(element("p", sentence, class_="warning"))
    parts.append(element("div", *(element("span", fact) for fact in facts), class_="facts"))
    if results.get("selection", {}).get("rule") == "best_on_test":
        warning = (
            "These weights were selected on the test split itself (selection.rule = best_on_test), as in much of the "
            "literature. Such scores are too good: do not compare them with scores selected on validation data."
        )
        parts.append(element("p", warning, class_="warning"))
    return join(parts)


def _in_words(results: Mapping[str, Any]) -> Sequence[object]:
    """The result as sentences that a newcomer understands."""
    name, described = next(iter(_scored(results).items()))
    title, unit = _split(described)
    if "seeds" in results:
        mean, low, high = (_number(value, unit) for value in (results["mean"][name], *results["interval"][name]))
        over = f" {unit} is the mean over {len(results['seeds'])} seeds; its 95 % interval is {low} to {high}."
        return [f"{title}: ", element("b", mean), over]
    if "measures" in results:
        return [f"{title}: ", element("b", _number(results[name], unit)), f" {unit}, the mean over all images."]
    total = results["num_examples"]
    right = round(results["accuracy"] * total)
    words: list[object] = [element("b", f"{right:,} of {total:,}"), f" {examples(results)} are classified correctly. "]
    recall = {c: value for c, value in enumerate(results["recall"]) if value is not None}
    if len(recall) < 2 or right == total or "confusion" not in results:
        return words
    confusion = np.asarray(results["confusion"])
    best, worst = max(recall, key=recall.__getitem__), min(recall, key=recall.__getitem__)
    mistakes = confusion[:, : len(confusion)] - np.diag(np.diag(confusion))
    truth, predicted = np.unravel_index(mistakes.argmax(), mistakes.shape)
    bold = {c: element("b", results["classes"][c]) for c in (best, worst, truth, predicted)}
    words += ["The best recognized class is ", bold[best], f" (recall {percent(recall[best], 0)}), "]
    words += ["the worst is ", bold[worst], f" ({percent(recall[worst], 0)}). The most frequent mistake is "]
    words += [bold[truth], " predicted as ", bold[predicted]]
    return [*words, f" ({mistakes[truth, predicted]:,} of {confusion[truth].sum():,})."]


def classifier_cards(results: Mapping[str, Any], mean_confidence: float) -> Html:
    """The scores of a classifier, each beside what to compare it with.

    Args:
        results: with all that `classification_metrics` returns.
        mean_confidence: the mean probability of the predicted classes.
    """
    names, support, left_out = results["classes"], results["support"], results["classes_without_examples"]
    commonest = int(np.argmax(support))
    chance = f"Chance: {percent(1 / (len(names) - len(left_out)))}."
    if left_out:
        chance += f" Classes without examples are left out: {some(left_out)}."
    excess = 100 * (mean_confidence - results["accuracy"])
    notes = {
        "accuracy": f"Always predicting {names[commonest]}: {percent(support[commonest] / sum(support))}.",
        "mean_recall": chance,
        "macro_f1": "Rare classes count as much as common ones.",
        "ece": f"On average {abs(excess):.1f} points {'over' if excess > 0 else 'under'}confident.",
        "nll": f"Per {examples(results)[:-1]}; uniform predictions score {math.log(len(names)):.3f}.",
        "coverage": f"The share of {examples(results)} with a prediction.",
        "kl_to_votes": "Divergence of the predictions from the annotators' votes.",
        "ece_to_votes": "Gap between the confidence and the share of votes for the predicted class.",
    }
    cards = [_card(results, name, note) for name, note in notes.items() if name in results]
    if "occluded" in results:
        lost = 100 * results["occluded"]["accuracy_lost"]
        note = f"{abs(lost):.1f} points {'lost' if lost >= 0 else 'gained'} on the same images behind objects."
        cards.append(_card(results["occluded"], "accuracy", note, "Accuracy behind objects, %"))
    if "plain" in results:
        note = f"Of the {examples(results)} alone; the other scores average magnified and mirrored views of each."
        cards.append(_card(results["plain"], "accuracy", note, "Accuracy, single view, %"))
    return element("div", *cards, class_="headline")


def mean_cards(results: Mapping[str, Any]) -> Html:
    """The measures of a method that predicts no classes, or the mean of each score over seeds with its interval."""
    last = results.get("selection", {}).get("last", {}).get("test") or {}
    cards = []
    for name, described in _scored(results).items():
        scores, note = results, "Mean over all images."
        if "seeds" in results:
            scores = {name: results["mean"][name], f"{name}_interval": results["interval"][name]}
            note = f"Standard deviation over the seeds: {_number(results['std'][name], described, 2)}."
        elif last.get(name) is not None:
            note = f"The last step's weights: {last[name]:.3f}."
        cards.append(_card(scores, name, note, described))
    return element("div", *cards, class_="headline")


def sweep(results: Mapping[str, Any]) -> Html:
    """A row of scores per fold or seed, then their mean, its interval if there is one, and their standard deviation."""
    over_seeds = "seeds" in results
    kind = "seed" if over_seeds else "fold"
    rows = []
    for member in results[f"{kind}s"]:
        link = element("a", str(member[kind]), href=f"../{member['folder']}/report/index.html")
        fact = str(member.get("best_step", "")) if over_seeds else f"{member['num_examples']:,}"
        rows.append([link, fact, *_cells(results, member)])
    below = {"Mean": results["mean"], "Standard deviation": results["std"]}
    if over_seeds:
        low, high = ({name: pair and pair[end] for name, pair in results["interval"].items()} for end in (0, 1))
        below |= {"95 % interval of the mean, from": low, "to": high}
    rows += [[title, "", *_cells(results, scores)] for title, scores in below.items()]
    head = (kind.capitalize(), "selected at step" if over_seeds else examples(results), *_scored(results).values())
    explanation = (
        f"{len(results['seeds'])} runs that differ only in their seed: initial parameters, order of the images, "
        "augmentation. The interval is Student's and concerns the mean over seeds on these same examples; a single run "
        "typically differs from the mean by one standard deviation. Each seed links to its own report."
        if over_seeds
        else f"The scores above are over all {results['num_examples']:,} {examples(results)} together. Here are those "
        "of each fold and their mean, which many papers report instead; the two differ if the folds differ in size."
    )
    card = element("div", table(rows, head=head), class_="card wide")
    return section(f"{kind.capitalize()} by {kind}", explanation, card)


def degraded(results: Mapping[str, Any]) -> Html:
    """A row of scores per degradation, the original images first; empty if none was scored."""
    if not results.get("degraded"):
        return Html()
    rows = [
        (
            name,
            percent(found["accuracy"]),
            f"{100 * found['accuracy_lost']:.1f}" if "accuracy_lost" in found else "",
            percent(found["mean_recall"]),
            f"{found['nll']:.3f}" if "nll" in found else "",
        )
        for name, found in {"original": results, **results["degraded"]}.items()
    ]
    explanation = (
        "The same images, each degraded in one way. The levels are defined at the top of "
        "fer_jax/data/corrupt/degradation.py."
    )
    scores = table(rows, head=("images", "accuracy", "points lost", "mean recall", "NLL"))
    return section("On degraded images", explanation, element("div", scores, class_="card"))


def _scored(results: Mapping[str, Any]) -> dict[str, str]:
    """Title and unit of each score that the results, or their means, hold."""
    scores = results.get("mean", results)
    titles = results.get("measures", SCORES)
    return {name: described for name, described in titles.items() if scores.get(name) is not None}


def _split(described: str) -> tuple[str, str]:
    """'PSNR, dB' -> ('PSNR', 'dB'); without a comma the unit is empty."""
    title, comma, unit = described.rpartition(", ")
    return (title, unit) if comma else (described, "")


def _number(value: float, described: str, digits: int = 1) -> str:
    """A score as its title has it: shares in percent, all others with three digits."""
    return f"{100 * value:.{digits}f}" if described.endswith("%") else f"{value:.3f}"


def _card(scores: Mapping[str, Any], name: str, note: str, described: str = "") -> Html:
    """A score that stands out. A share is drawn on a track from 0 to 100 %, with its interval if there is one."""
    described = described or SCORES[name]
    title, unit = _split(described)
    value, interval, track = scores[name], scores.get(f"{name}_interval"), Html()
    if interval:
        note = f"95 % interval {_number(interval[0], described)} to {_number(interval[1], described)}. {note}"
    if unit == "%":
        low, high = np.clip(interval or (value, value), 0, 1) * 100  # Student's may lie outside
        between = element("i", style=f"left:{low:.2f}%;width:{high - low:.2f}%")
        at = element("b", style=f"left:{100 * value:.2f}%")
        track = element("div", between, at, class_="track", aria_hidden="true")
    number = element("p", _number(value, described), element("span", unit, class_="unit"), class_="value")
    return element("div", element("h3", title), number, track, element("p", note), class_="card")


def _cells(results: Mapping[str, Any], scores: Mapping[str, Any]) -> list[str]:
    return [
        "" if scores[name] is None else _number(scores[name], described, 2)
        for name, described in _scored(results).items()
    ]
