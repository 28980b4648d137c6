"""One word vector per class, found by the name of the emotion, since each data set numbers its classes differently."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from fer_jax.errors import UserError, nearest
from fer_jax.labels import ALIASES, COMPOUND_EMOTIONS, EMOTIONS, name_of
from fer_jax.parsing import read_json
from fer_jax.storage import local
from fer_jax.words.readers import read_vectors

HERE = pathlib.Path(__file__).parent
SHIPPED = MappingProxyType({"minilm": HERE / "class_vectors_minilm.csv"})
STORED = "class_vectors.json"  # the table of a run, in its work directory
SAME = 0.9999  # a cosine above this is the same vector

# The words for each emotion; several are averaged. _SEED mixes adjectives and nouns, so part of their similarity comes
# from the part of speech.
_SEED = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
_NOUNS = ("neutrality", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
_SYNONYMS = {
    "neutral": ("neutral", "neutrality", "expressionless", "calm"),
    "happiness": ("happy", "happiness", "joy", "smiling"),
    "surprise": ("surprise", "surprised", "astonished", "amazed"),
    "sadness": ("sad", "sadness", "sorrow", "unhappy"),
    "anger": ("angry", "anger", "rage", "furious"),
    "disgust": ("disgust", "disgusted", "revulsion", "repulsed"),
    "fear": ("fear", "afraid", "scared", "frightened"),
    "contempt": ("contempt", "contemptuous", "scorn", "disdain"),
}  # needs a file with a full vocabulary
WORD_SETS: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "seed": {emotion: (word,) for emotion, word in zip(EMOTIONS, _SEED, strict=True)},
        "nouns": {emotion: (word,) for emotion, word in zip(EMOTIONS, _NOUNS, strict=True)},
        "both": {e: tuple(dict.fromkeys(pair)) for e, *pair in zip(EMOTIONS, _SEED, _NOUNS, strict=True)},
        "synonyms": _SYNONYMS,
    }
)


@dataclasses.dataclass(frozen=True)
class ClassVectors:
    """The raw class vectors r_k, in the order of a data set's classes.

    Attributes:
        source: where they come from.
        classes: C names, as in the data set.
        words: for each class, the words whose vectors are averaged.
        vectors: float32 values [C, dimension]; tuples, so that a model with this field can be hashed.
    """

    source: str
    classes: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    vectors: tuple[tuple[float, ...], ...]

    def sha256(self) -> str:
        """Returns the SHA-256 of the vectors as float32 little-endian bytes, class by class."""
        return hashlib.sha256(np.asarray(self.vectors, "<f4").tobytes()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """Returns what identifies the vectors, as plain JSON values."""
        words = {name: " + ".join(words) for name, words in zip(self.classes, self.words, strict=True)}
        return {"source": self.source, "dimension": len(self.vectors[0]), "words": words, "sha256": self.sha256()}

    def as_json(self) -> dict[str, Any]:
        """Returns everything as plain JSON values; `class_vectors` reads them back from a file."""
        return self.summary() | {"classes": self.classes, "words": self.words, "vectors": self.vectors}


def class_vectors(source: str, words: str, classes: Sequence[str]) -> ClassVectors:
    """Returns the vectors of a data set's classes, in their order.

    Args:
        source: 'minilm' (the shipped table), an embedding file (see `readers`), or the `class_vectors.json` of a run.
        words: one of WORD_SETS; has no effect on the table of a run.
        classes: emotion names in any common form, in the data set's order.

    Raises:
        UserError: for an unknown set of words, a class without a word, a word that is missing from the file, and two
            classes with the same vector.
    """
    if words not in WORD_SETS:
        raise UserError(f"config.model.words='{words}': {nearest(words, WORD_SETS)}")
    emotions = [_emotion(name) for name in classes]
    if source.endswith(".json"):
        table = _stored(source, emotions, tuple(classes))
    else:
        chosen = [WORD_SETS[words][emotion] for emotion in emotions]
        table = _read(source, words, chosen, tuple(classes))
    _check(table)
    return table


def _emotion(name: str) -> str:
    if name in COMPOUND_EMOTIONS and name.lower() not in ALIASES:
        raise UserError(
            f"class '{name}' is a compound emotion without a word of its own, and mixtures of the words of seven "
            "emotions cannot distinguish such classes; train another method on this data set"
        )
    return name_of(name)


def _read(source: str, words: str, chosen: Sequence[tuple[str, ...]], classes: tuple[str, ...]) -> ClassVectors:
    wanted = sorted(set(itertools.chain.from_iterable(chosen)))
    found = read_vectors(str(SHIPPED.get(source, source)), wanted)
    if missing := [word for word in wanted if word not in found]:
        what = f"the shipped table '{source}'" if source in SHIPPED else source
        raise UserError(
            f"config.model.vectors: {what} has no vector for {', '.join(repr(word) for word in missing)}, which "
            f"config.model.words='{words}' needs: give another file or another set of words "
            f"({', '.join(s for s in WORD_SETS if s != words)})"
        )
    rows = [np.mean([found[word] for word in synonyms], axis=0, dtype=np.float32) for synonyms in chosen]
    return ClassVectors(source, classes, tuple(chosen), _tuples(rows))


def _stored(path: str, emotions: Sequence[str], classes: tuple[str, ...]) -> ClassVectors:
    stored = read_json(local(path, "config.model.vectors"), "give another config.model.vectors")
    try:
        names = [name_of(name) for name in stored["classes"]]
        table = ClassVectors(
            stored["source"],
            tuple(stored["classes"]),
            tuple(tuple(words) for words in stored["words"]),
            _tuples(np.asarray(stored["vectors"], np.float32)),
        )
        if table.sha256() != stored["sha256"]:
            raise ValueError("its vectors differ from the recorded SHA-256")
        rows = [names.index(emotion) for emotion in emotions]
        return dataclasses.replace(
            table,
            classes=classes,
            words=tuple(table.words[row] for row in rows),
            vectors=tuple(table.vectors[row] for row in rows),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"config.model.vectors: {path} is not a table of class vectors of {', '.join(classes)} ({error})"
        ) from error


def _check(table: ClassVectors) -> None:
    """Raises UserError if a vector is zero or not finite, and if two classes have the same vector."""
    v = np.asarray(table.vectors, np.float64)
    for words, vector in zip(table.words, v, strict=True):
        if not (np.isfinite(vector).all() and vector.any()):
            raise UserError(
                f"config.model.vectors: the vector of '{' + '.join(words)}' in {table.source} is zero or not finite"
            )
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    for a, b in itertools.combinations(range(len(v)), 2):
        if v[a] @ v[b] > SAME:
            raise UserError(
                f"config.model.vectors: '{' + '.join(table.words[a])}' and '{' + '.join(table.words[b])}' have the "
                f"same vector in {table.source}, so their classes cannot be distinguished"
            )


def _tuples(rows: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in rows)
