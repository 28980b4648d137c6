"""Expressions as recipes of facial action units (FACS), after Du, Tao and Martinez, PNAS 2014, table 1."""

from __future__ import annotations

import dataclasses

import numpy as np

from fer_jax.randomness import Stream

ACTION_UNITS: dict[int, str] = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    10: "upper lip raiser",
    11: "nasolabial deepener",
    12: "lip corner puller",
    15: "lip corner depressor",
    17: "chin raiser",
    20: "lip stretcher",
    23: "lip tightener",
    24: "lip pressor",
    25: "lips part",
    26: "jaw drop",
}
AU_IDS: tuple[int, ...] = tuple(ACTION_UNITS)
AU_COLUMN: dict[int, int] = {unit: column for column, unit in enumerate(AU_IDS)}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One of the 22 categories: units that always act, units that act in a share of the people (per cent)."""

    name: str
    dominant: str  # the basic emotion whose recipe it mostly is, by canonical name
    always: tuple[int, ...]
    sometimes: dict[int, int]
    second: str = ""  # the other basic emotion of a compound one


RECIPES: tuple[Recipe, ...] = (
    Recipe("neutral", "neutral", (), {}),
    Recipe("happy", "happiness", (12, 25), {6: 51}),
    Recipe("sad", "sadness", (4, 15), {1: 60, 6: 50, 11: 26, 17: 67}),
    Recipe("fearful", "fear", (1, 4, 20, 25), {2: 57, 5: 63, 26: 33}),
    Recipe("angry", "anger", (4, 7, 24), {10: 26, 17: 52, 23: 29}),
    Recipe("surprised", "surprise", (1, 2, 25, 26), {5: 66}),
    Recipe("disgusted", "disgust", (9, 10, 17), {4: 31, 24: 26}),
    Recipe("happily surprised", "happiness", (1, 2, 12, 25), {5: 64, 26: 67}, "surprise"),
    Recipe("happily disgusted", "happiness", (10, 12, 25), {4: 32, 6: 61, 9: 59}, "disgust"),
    Recipe("sadly fearful", "sadness", (1, 4, 20, 25), {2: 46, 5: 24, 6: 34, 15: 30}, "fear"),
    Recipe("sadly angry", "sadness", (4, 15), {6: 26, 7: 48, 11: 20, 17: 50}, "anger"),
    Recipe("sadly surprised", "sadness", (1, 4, 25, 26), {2: 27, 6: 31}, "surprise"),
    Recipe(
        "sadly disgusted",
        "sadness",
        (4, 10),
        {1: 49, 6: 61, 9: 20, 11: 35, 15: 54, 17: 47, 25: 43},
        "disgust",
    ),
    Recipe("fearfully angry", "fear", (4, 20, 25), {5: 40, 7: 39, 10: 30, 11: 33}, "anger"),
    Recipe("fearfully surprised", "fear", (1, 2, 5, 20, 25), {4: 47, 10: 35, 11: 22, 26: 51}, "surprise"),
    Recipe("fearfully disgusted", "fear", (1, 4, 10, 20, 25), {2: 64, 5: 50, 6: 26, 9: 28, 15: 33}, "disgust"),
    Recipe("angrily surprised", "anger", (4, 25, 26), {1: 35, 2: 37, 7: 50, 10: 34}, "surprise"),
    Recipe("angrily disgusted", "anger", (4, 10, 17), {7: 60, 9: 57, 24: 36}, "disgust"),
    Recipe("disgustedly surprised", "disgust", (1, 2, 5, 10), {4: 45, 9: 37, 17: 66, 24: 33}, "surprise"),
    Recipe("appalled", "disgust", (4, 10), {6: 25, 9: 56, 17: 67, 24: 36}, "anger"),
    Recipe("hatred", "anger", (4, 10), {7: 57, 9: 27, 17: 63, 24: 37}, "disgust"),
    Recipe("awed", "surprise", (1, 2, 5, 25), {4: 21, 20: 62, 26: 56}, "fear"),
)
COMPOUND_NAMES: tuple[str, ...] = tuple(recipe.name for recipe in RECIPES)

# Pleasure and arousal, -1 to 1 (Russell and Mehrabian, Journal of Research in Personality 11, 1977).
AFFECT: dict[str, tuple[float, float]] = {
    "neutral": (0.0, 0.0),
    "happiness": (0.81, 0.51),
    "surprise": (0.40, 0.67),
    "sadness": (-0.63, -0.27),
    "anger": (-0.51, 0.59),
    "disgust": (-0.60, 0.35),
    "fear": (-0.64, 0.60),
}

# Basic category (column of the canonical emotions) -> id in the table above.
BASIC_RECIPES: tuple[int, ...] = (0, 1, 5, 2, 4, 6, 3)


def _presence_table() -> np.ndarray:
    table = np.zeros((len(RECIPES), len(AU_IDS)))
    for row, recipe in enumerate(RECIPES):
        for unit in recipe.always:
            table[row, AU_COLUMN[unit]] = 1.0
        for unit, percent in recipe.sometimes.items():
            table[row, AU_COLUMN[unit]] = percent / 100
    return table


PRESENCE = _presence_table()  # [22, n]: the share of people in whom a unit acts


def affect_of(category: int, intensity: float) -> tuple[float, float]:
    """Returns valence and arousal: the place of the emotion in `AFFECT`, of two the middle, times the intensity."""
    recipe = RECIPES[category]
    both = np.array([AFFECT[recipe.dominant], AFFECT[recipe.second or recipe.dominant]]).mean(axis=0) * intensity
    return float(both[0]), float(both[1])


def sample_action_units(stream: Stream, category: np.ndarray, intensity: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Draws the intensity of every action unit.

    Args:
      stream: source of uniform numbers, one row per example.
      category: [B] row of `RECIPES`.
      intensity: [B] strength of the whole expression, 0..1.
      gain: [B, n] how strongly this person's muscles follow (about 1).

    Returns:
      [B, n] float32 in 0..1: zero for units that do not act; those of the recipe act strongly, the
      additional ones from half strength on.
    """
    share = PRESENCE[category]
    acts = stream.uniform(size=len(AU_IDS)) < share
    strength = stream.uniform(0.0, 1.0, size=len(AU_IDS))
    strength = np.where(share == 1.0, 0.78 + 0.22 * strength, 0.5 + 0.5 * strength)
    return np.where(acts, np.minimum(intensity[:, None] * strength * gain, 1.0), 0.0).astype(np.float32)
