"""The one table of emotions: their canonical order, their other names, and every data set's own codes.

Data sets number the emotions differently, so labels are converted only here: from a code to a *name*, and from the
name to an index. Never map an index to an index.

    >>> canonical("rafdb", 1)
    'surprise'
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from fer_jax.errors import UserError, nearest

EMOTIONS: tuple[str, ...] = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
)  # the 7-class problem is the first seven

AFFECT = ("valence", "arousal")  # from -1 to 1; any other value, such as AffectNet's -2, is none

NO_EMOTION = -1  # the index of codes such as AffectNet's "uncertain", and of contempt in a 7-class problem

FERPLUS_VOTES: tuple[str, ...] = (*EMOTIONS, "unknown", "NF")  # NF: not a face

_ALIASES: Mapping[str, tuple[str, ...]] = {
    "neutral": ("ne", "neu"),
    "happiness": ("happy", "happily", "ha", "hap", "joy"),
    "surprise": ("surprised", "surprising", "su", "sur"),
    "sadness": ("sad", "sadly", "sa"),
    "anger": ("angry", "angered", "angrily", "an", "ang"),
    "disgust": ("disgusted", "disgustedly", "di", "dis"),
    "fear": ("fearful", "fearfully", "afraid", "scared", "af", "fe", "fea"),
    "contempt": ("contemptuous", "contemptuously", "co", "con"),
}
ALIASES: Mapping[str, str] = MappingProxyType(
    {name: name for name in EMOTIONS} | {alias: name for name, many in _ALIASES.items() for alias in many}
)

_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters and a symbol that are drawn as nothing

MANY_CLASSES = 100  # more are people, not expressions: then nothing has a row or a column for each of them

Code = int | str

# One row per data set: its own code -> the name in its documentation. Codes are integers if the files contain numbers,
# otherwise the folder name or the letters in the file name.
CODES: Mapping[str, Mapping[Code, str]] = MappingProxyType(
    {
        "synthetic_faces": dict(enumerate(EMOTIONS)),
        "fer2013": dict(enumerate(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"))),
        "ferplus": dict(enumerate(FERPLUS_VOTES)),  # the column of the votes
        "rafdb": dict(enumerate(("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"), start=1)),
        "affectnet": dict(
            enumerate(
                (
                    *("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt"),
                    *("none", "uncertain", "no-face"),
                )
            )
        ),
        "afew": {n: n for n in ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")},
        "sfew": {n: n for n in ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")},
        "ckplus": dict(enumerate(("neutral", "anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise"))),
        "mmi": dict(enumerate(("anger", "disgust", "fear", "happy", "sadness", "surprise"), start=1)),
        "affwild2": {
            **{n: n for n in ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise")},
            "Other": "other",
        },
        "expw": dict(enumerate(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"))),
        "caer_s": {n: n for n in ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")},
        "oulu_casia": {n: n for n in ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise")},
        "jaffe": {n: n for n in ("AN", "DI", "FE", "HA", "NE", "SA", "SU")},
        "kdef": {n: n for n in ("AF", "AN", "DI", "HA", "NE", "SA", "SU")},
        # The authors misspelled the folder of neutral faces.
        "fed_ro": {"neural": "neutral", **{n: n for n in ("happy", "sad", "surprise", "fear", "disgust", "anger")}},
        "dfew": dict(
            enumerate(("none", "happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"))
        ),  # 0: no single label
        "mafw": {
            n: n
            for n in (
                *("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
                *("contempt", "anxiety", "helplessness", "disappointment"),
            )
        },
        "ferv39k": {n: n for n in ("Happy", "Sad", "Neutral", "Angry", "Surprise", "Disgust", "Fear")},
    }
)

# Names of data sets for an image that shows no emotion, or more than one.
NOT_EMOTIONS = frozenset({"none", "uncertain", "no-face", "unknown", "NF"})

# Classes of single data sets beyond the canonical ones.
MAFW_CLASSES: tuple[str, ...] = (*EMOTIONS, "anxiety", "helplessness", "disappointment")
AFFWILD2_CLASSES: tuple[str, ...] = (*EMOTIONS[:7], "other")
FURTHER_CLASSES = frozenset((*MAFW_CLASSES, *AFFWILD2_CLASSES)) - frozenset(EMOTIONS)

# The 22 categories of Du, Tao and Martinez (PNAS 2014): neutral, six basic, fifteen compound; the order is ours.
COMPOUND_EMOTIONS: tuple[str, ...] = (
    "neutral",
    "happy",
    "sad",
    "fearful",
    "angry",
    "surprised",
    "disgusted",
    "happily surprised",
    "happily disgusted",
    "sadly fearful",
    "sadly angry",
    "sadly surprised",
    "sadly disgusted",
    "fearfully angry",
    "fearfully surprised",
    "fearfully disgusted",
    "angrily surprised",
    "angrily disgusted",
    "disgustedly surprised",
    "appalled",
    "hatred",
    "awed",
)

# Words that name a pair of basic emotions, the emphasized one first (Du et al.).
PAIR_WORDS = {"appalled": ("disgust", "anger"), "hatred": ("anger", "disgust"), "awed": ("surprise", "fear")}

_RAFDB = (
    "happily surprised, happily disgusted, sadly fearful, sadly angry, sadly surprised, sadly disgusted, "
    "fearfully angry, fearfully surprised, angrily surprised, angrily disgusted, disgustedly surprised"
)
_RAFCE = (
    "happily surprised, happily disgusted, sadly fearful, sadly angry, sadly surprised, sadly disgusted, "
    "fearfully angry, fearfully surprised, fearfully disgusted, angrily surprised, angrily disgusted, "
    "disgustedly surprised, happily fearful, happily sad"
)
_CEXPR = (
    "fearfully surprised, happily surprised, sadly surprised, disgustedly surprised, angrily surprised, "
    "sadly fearful, sadly angry"
)
# As CODES, of data sets of compound expressions.
COMPOUND_CODES: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "synthetic_faces": dict(enumerate(COMPOUND_EMOTIONS)),
        "rafdb": dict(enumerate(_RAFDB.split(", "), start=1)),
        "rafce": dict(enumerate(_RAFCE.split(", "))),
        "cexpr": dict(enumerate(_CEXPR.split(", "))),
    }
)
PARTS: tuple[str, ...] = EMOTIONS[1:7]  # the basic emotions, of which compound expressions are pairs


def classes(num_classes: int) -> tuple[str, ...]:
    """Returns the names of the 7- or 8-class problem in canonical order."""
    if num_classes not in (7, 8):
        raise UserError(f"num_classes={num_classes} is not a set of emotions: use 7, or 8 with contempt")
    return EMOTIONS[:num_classes]


def class_name(text: str) -> str:
    """Returns a class's name in the one form that is compared and stored; '' if no character of it is visible.

    The form is Unicode NFC (macOS decomposes file names, so archives hold either form), with one space between words,
    none at the ends, and without control and format characters such as the zero-width space.
    """
    shown = ("".join(c for c in word if unicodedata.category(c) not in ("Cc", "Cf")) for word in text.split())
    name = unicodedata.normalize("NFC", " ".join(filter(None, shown)))
    return name if any(unicodedata.category(c)[0] in "LNPS" and c not in _BLANK for c in name) else ""


def emotion_of(word: str) -> str | None:
    """Returns the canonical name of an emotion in any common form ('Angry', 'happily', 'SU'), None for other words."""
    return ALIASES.get(class_name(word).lower())


def name_of(word: str) -> str:
    """As `emotion_of`, but raises `UserError` for other words."""
    name = emotion_of(word)
    if name is None:
        raise UserError(f"'{word}' is not a known emotion: {nearest(word.strip().lower(), EMOTIONS)}")
    return name


def parts_of(expression: str) -> tuple[str, ...] | None:
    """Returns the basic emotions of an expression: none of neutral, two of a compound one; None for other words.

    Underscores and hyphens count as spaces.

    >>> parts_of("sadly fearful")
    ('sadness', 'fear')
    """
    name = class_name(re.sub("[_-]", " ", expression)).lower()
    parts = PAIR_WORDS.get(name) or tuple(ALIASES.get(word, word) for word in name.split())
    if parts == ("neutral",):
        return ()
    return parts if set(parts) <= set(PARTS) and len(set(parts)) == len(parts) in (1, 2) else None


def are_compound(expressions: Iterable[str]) -> bool:
    """Returns whether all of these are neutral, a basic emotion or two of them, and some are two."""
    parts = [parts_of(name) for name in expressions]
    return None not in parts and 2 in map(len, filter(None, parts))


def canonical(dataset: str, code: Code) -> str:
    """Returns the canonical name of one of `dataset`'s own codes.

    A code for "no emotion" (one of `NOT_EMOTIONS`) or a further class keeps the name that the data set uses.

    Raises:
        UserError: if the data set is not in the table, or does not use this code.
    """
    if dataset not in CODES:
        raise UserError(f"the label codes of data set '{dataset}' are unknown: {nearest(dataset, CODES)}")
    row = CODES[dataset]
    if code not in row:
        raise UserError(f"{dataset} has no label code {code!r}; known: {', '.join(map(str, row))}")
    name = row[code]
    return name if name in NOT_EMOTIONS | FURTHER_CLASSES else name_of(name)


def index_table(dataset: str, num_classes: int = 8) -> np.ndarray:
    """Returns the canonical index of each integer code, int64 [largest code + 1]; `NO_EMOTION` of those without any."""
    names = classes(num_classes)
    table = np.full(max(map(int, CODES[dataset])) + 1, NO_EMOTION, np.int64)
    for code in CODES[dataset]:
        name = canonical(dataset, code)
        table[int(code)] = names.index(name) if name in names else NO_EMOTION
    return table
