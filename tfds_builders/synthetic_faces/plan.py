"""Which picture is which: kinds, splits, people and categories of a data set, from its counts alone."""

from __future__ import annotations

import dataclasses

import numpy as np

from fer_jax.errors import UserError
from fer_jax.labels import COMPOUND_EMOTIONS, classes
from tfds_builders.synthetic_faces.expressions import BASIC_RECIPES, RECIPES

KINDS: tuple[str, ...] = ("basic", "compound", "clips", "identities")
SPLITS: tuple[str, ...] = ("train", "test")
_SPLIT_STRIDE = 1 << 20
_KIND_STRIDE = 1 << 24
_SUBJECT_STRIDE = 1 << 16


@dataclasses.dataclass(frozen=True)
class Plan:
    """One data set.

    `bank` names the occluders put before every face ('' for none). The classes of 'identities' are the people, who are
    the same in both splits. `gray` stores pictures with one channel.
    """

    kind: str = "basic"
    size: int = 64
    train: int = 6000
    test: int = 1500
    seed: int = 0
    bank: str = ""
    per_subject: int = 12
    frames: int = 12  # of a clip
    gray: bool = False
    affect: bool = False  # whether valence and arousal are stored

    def __post_init__(self):
        if self.kind not in KINDS:
            raise UserError(f"kind is '{self.kind}'; it must be one of {', '.join(KINDS)}")
        if self.bank not in ("", "train", "test"):
            raise UserError(f"bank is '{self.bank}'; it must be 'train', 'test' or empty")
        if self.size < 24:
            raise UserError(f"size is {self.size}; a face needs at least 24 pixels")
        if not 0 <= self.seed < 1 << 63:
            raise UserError(f"seed is {self.seed}; it must be 0 or more")
        for name in ("train", "test", "per_subject", "frames"):
            if not 1 <= (number := getattr(self, name)) <= _SPLIT_STRIDE:
                raise UserError(f"{name} is {number}; synthetic faces need 1 at least, and {_SPLIT_STRIDE:,} at most")
        if max(self.train, self.test) > _SUBJECT_STRIDE * self.per_subject:
            raise UserError(f"per_subject is {self.per_subject}, which needs more than {_SUBJECT_STRIDE:,} people")
        if self.kind == "identities" and self.people("train") < 2:
            raise UserError(f"train={self.train} with per_subject={self.per_subject} is one person: give two or more")

    def classes(self) -> tuple[str, ...]:
        """Returns the names of the labels."""
        if self.kind == "identities":
            return tuple(map(person_name, range(self.people("train"))))
        return COMPOUND_EMOTIONS if self.kind == "compound" else classes(7)

    def people(self, split: str) -> int:
        """Returns how many people a split shows."""
        return -(-self.count("train" if self.kind == "identities" else split) // self.per_subject)

    def count(self, split: str) -> int:
        return {"train": self.train, "test": self.test}[split]

    def identify(self, split: str, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (index, subject, category) of the given positions of a split.

        People take turns, so that any leading part of a split has as many people as possible and even
        classes; nobody is in two splits, unless the classes are people. Occluded copies have the index of their
        original.
        """
        positions = np.asarray(positions, np.int64)
        split_number = SPLITS.index(split)
        people = self.people(split)
        person, turn = positions % people, positions // people
        if self.kind == "compound":
            category = (person + turn) % len(RECIPES)
        else:
            category = np.array(BASIC_RECIPES)[(person + turn) % len(BASIC_RECIPES)]
        index = KINDS.index(self.kind) * _KIND_STRIDE + split_number * _SPLIT_STRIDE + positions
        first = 0 if self.kind == "identities" else split_number * _SUBJECT_STRIDE
        return index, first + person, category


def person_name(subject: int) -> str:
    """Returns the name of the class of a person."""
    return f"person{subject:05}"
