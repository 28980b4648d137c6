"""The section on where a model looks: maps over a few test faces, and their mean by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fer_jax.report.heat import DIVERGING
from fer_jax.report.images import picture
from fer_jax.report.markup import Html, element, figure_card, percent, section, table
from fer_jax.report.sections import answer, tile

COVER = 0.65  # the largest share of a face that the colors of a map replace
TILES = 2  # of each class
TITLES = {
    "pointing_game": "Share of largest values in the region",
    "relevance_mass": "Share of the mass in the region",
    "relevance_rank": "Share of the largest values in the region",
    "region_cosine": "Cosine with the region",
}


@dataclass(frozen=True)
class Looks:
    """Maps of what speaks for the true class of n test faces.

    Attributes:
        classes: names of the classes.
        labels: int [n], the true ones.
        columns: int [C], the place of each class among the model's outputs.
        logits: of the model, float32 [n, at least C].
        faces: uint8 [n, H, W, 1 or 3].
        maps: float32 [n, H, W].
        scores: against the regions of action units, by the name of a score: of the maps and of random ones; empty where
            the data set has none.
    """

    classes: Sequence[str]
    labels: np.ndarray
    columns: np.ndarray
    logits: np.ndarray
    faces: np.ndarray
    maps: np.ndarray
    scores: Mapping[str, tuple[float, float]]


def overlay(face: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Returns a face uint8 [H, W, 1 or 3] in gray under its map [H, W]: blue for the class, orange against it."""
    gray = face.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    strength = np.clip(relevance / max(float(np.abs(relevance).max()), 1e-12), -1, 1)
    colors = 255 * np.asarray(DIVERGING(0.5 + 0.42 * np.sign(strength)))[..., :3]
    cover = COVER * np.abs(strength)[..., None]
    return np.round((1 - cover) * gray + cover * colors).astype(np.uint8)


def looking(looks: Looks | None) -> Html:
    """Draws where the model looks; empty where it computes no map."""
    if looks is None:
        return Html()
    tiles, means = [], []
    predicted = looks.logits[:, looks.columns].argmax(axis=-1)
    for c, name in enumerate(looks.classes):
        rows = np.flatnonzero(looks.labels == c)
        for row in rows[:TILES].tolist():
            face = looks.faces[row]
            images = [picture(face, f"A face of {name}"), picture(overlay(face, looks.maps[row]), "its map")]
            tiles.append(tile(images, answer(looks.classes, c, int(predicted[row]))))
        if len(rows):
            strength = np.abs(looks.maps[rows]).max(axis=(1, 2), keepdims=True)
            mean = overlay(
                looks.faces[rows].mean(axis=0), (looks.maps[rows] / np.maximum(strength, 1e-12)).mean(axis=0)
            )
            means.append(element("figure", element("figcaption", name), picture(mean, f"Mean map of {name}")))
    text = (
        "Blue places speak for the true class of a face, orange ones against it: gradient times activation at the "
        "network's last map that is not too coarse. It says what the network used, not whether that is right."
    )
    mean = element("div", element("h3", "Mean by class"), element("div", *means, class_="small"), class_="card")
    cards = [mean, *([_scores(looks.scores)] if looks.scores else [])]
    return section(
        "Where the model looks",
        text,
        element("div", *tiles, class_="tiles pairs"),
        element("div", *cards, class_="pair"),
    )


def _scores(scores: Mapping[str, tuple[float, float]]) -> Html:
    rows = [(title, *(f"{value:.2f}" for value in scores[name])) for name, title in TITLES.items()]
    explanation = (
        f"Where the action units of these faces act is known: on {percent(scores['area'][0], 0)} of the picture. "
        "Random maps are as coarse as the network's."
    )
    return figure_card("Against the action units", explanation, table(rows, head=("", "These maps", "Random maps")))
