"""Label noise: wrong training labels, drawn with a seed, read from a published list, or taken from FER-2013.

Kinds, all by the names of the classes:
    symmetric: any of the other classes with equal probability.
    asymmetric: the other classes as often as FER+'s annotators vote for them (`prior.FERPLUS` without its diagonal).
    pair: the next class in the order of `labels.EMOTIONS`; the first one follows the last.
    matrix: a label drawn from the row of its class in a transition matrix (`matrices.transition_matrix`).
    fer2013: the label that FER-2013 gives a picture of FER+: real noise, whose truth is the majority of the votes.

Each label is changed with probability `rate` (with a matrix, that of its class), independently of the others, as in the
published script behind the usual noise files; so the number of changed labels varies, and results.json records it. The
outcome depends only on the seed and on the example's row in the split as stored: the same examples are wrong in any
selection and order, and examples that are wrong at one rate are wrong in the same way at any higher rate.

Noise is added after the held-out part is split off, so only training labels change. Selecting the model on true labels
makes the selected checkpoint look a little better than a validation set with the same noise would;
`selection.rule='last'` selects nothing. The true label stays in the field `clean_label` for a method's monitor; no loss
reads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from fer_jax.data.targets import matrices
from fer_jax.data.targets.prior import FERPLUS, emotion_indices
from fer_jax.errors import UserError
from fer_jax.labels import ALIASES, CODES, canonical
from fer_jax.labels import classes as emotions
from fer_jax.parsing import read_text
from fer_jax.randomness import Purpose, Stream
from fer_jax.storage import local

if TYPE_CHECKING:
    from fer_jax.data.sources.source import Source

HARD_TARGETS = ("label", "majority", "argmax")  # rules that give one class, which can be wrong
RATED = ("symmetric", "asymmetric", "pair")  # kinds that are drawn with a rate


def check(data: Any, *, reads_labels: bool) -> None:
    """Raises UserError if the noise fields of `config.data` contradict each other, the target rule or the method.

    Args:
        data: the `data` part of an experiment's config.
        reads_labels: whether the method reads labels.
    """
    kind, rate = data.label_noise, data.label_noise_rate
    if kind not in ("", "matrix") and data.label_noise_file:
        raise UserError("config.data.label_noise and config.data.label_noise_file: set one of them")
    if kind == "matrix" and not data.label_noise_file:
        raise UserError(
            f"config.data.label_noise='matrix' needs config.data.label_noise_file: {', '.join(matrices.NAMED)}, or a "
            "file with a matrix"
        )
    if (kind in RATED) != bool(rate):
        raise UserError(
            f"config.data.label_noise='{kind}' and config.data.label_noise_rate={rate}: set both or neither, for "
            f"example 'symmetric' and 0.2; only {', '.join(RATED)} have a rate"
        )
    field = "label_noise_file" if data.label_noise_file else "label_noise"
    if data[field] and not reads_labels:
        raise UserError(f"config.data.{field}: this method does not use labels; leave it out")
    if data[field] and data.target not in HARD_TARGETS:
        raise UserError(
            f"config.data.{field}: config.data.target='{data.target}' is a distribution without a label to change: "
            f"give {', '.join(HARD_TARGETS)}"
        )


def with_label_noise(source: Source, data: Any, names: Sequence[str] = ()) -> tuple[Source, dict[str, Any]]:
    """Changes the labels of a training source as specified in `config.data`.

    Args:
        source: the training examples, without the held-out ones.
        data: the `data` part of an experiment's config, with `label_noise` or `label_noise_file` set.
        names: of the images in the split as stored; needed only for a list.

    Returns:
        The source with noisy `label` and `target` and the true labels in `clean_label`, and the record for
        results.json.

    Raises:
        UserError: if the classes do not suit the kind, or if a list is damaged or lacks images.
    """
    clean, kind = source.arrays["label"], data.label_noise
    if kind == "fer2013":
        labels, origin = fer2013_labels(source), {"kind": kind}
    elif kind == "matrix":
        matrix = matrices.transition_matrix(data.label_noise_file, source.classes, "config.data.label_noise_file")
        wrong, rate = wrong_labels("symmetric", source.classes), 1 - np.diag(matrix)
        np.divide(matrix * (wrong > 0), rate[:, None], out=wrong, where=rate[:, None] > 0)
        labels = noisy_labels(clean, source.rows, wrong, rate=rate[clean], seed=data.label_noise_seed)
        origin = {"kind": kind, "matrix": matrix.tolist(), "seed": data.label_noise_seed}
    elif not kind:
        path = pathlib.Path(local(data.label_noise_file, "config.data.label_noise_file"))
        listed = read_noise_list(path, source.name.partition("/")[0], source.classes, source.split, names)
        labels = listed[source.rows]
        origin = {"kind": "list", "file": path.name, "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    else:
        wrong = wrong_labels(kind, source.classes)
        labels = noisy_labels(clean, source.rows, wrong, rate=data.label_noise_rate, seed=data.label_noise_seed)
        origin = {"kind": kind, "rate": data.label_noise_rate, "seed": data.label_noise_seed}
    changed = int((labels != clean).sum())
    record = origin | {
        "examples": len(labels),
        "changed": changed,
        "changed_share": changed / len(labels),
        "labels_sha256": hashlib.sha256(labels.astype("<i4").tobytes()).hexdigest(),  # in the order of the examples
    }
    target = np.eye(len(source.classes), dtype=np.float32)[labels]
    arrays = {**source.arrays, "label": labels, "target": target, "clean_label": clean}
    return dataclasses.replace(source, arrays=arrays), record


def noisy_labels(
    labels: Int[np.ndarray, " N"],
    rows: Int[np.ndarray, " N"],
    wrong: Float[np.ndarray, "C C"],
    *,
    rate: float | Float[np.ndarray, " N"],
    seed: int,
) -> Int[np.ndarray, " N"]:
    """Returns the labels, each replaced with probability `rate` by a draw from its class's row of `wrong`.

    Args:
        labels: the true labels.
        rows: row of each example in its split as stored; together with the seed it determines the draw.
        wrong: for each class a distribution over the other classes, zero on the diagonal (see `wrong_labels`).
        rate: in [0, 1], one for all or one for each example.
        seed: of the noise, independent of the seed of training.
    """
    stream = Stream(seed, Purpose.LABEL_NOISE, rows, capacity=2)
    change, which = stream.chance(rate), stream.uniform()
    edges = np.cumsum(wrong, axis=1)
    edges /= edges[:, -1:]  # the last edge is exactly 1, above any draw
    # The first edge above the draw. A class with probability 0 has the edge of the class before it: never the first.
    drawn = (which[:, None] >= edges[labels]).sum(axis=1)
    return np.where(change, drawn, labels).astype(np.int32)


def fer2013_labels(source: Source) -> Int[np.ndarray, " N"]:
    """Returns the labels that FER-2013 gives the pictures of a data set that keeps them beside others, as FER+ does.

    Raises:
        UserError: if the data set has no such labels, or its classes leave one of them out.
    """
    here = "config.data.label_noise='fer2013'"
    if "fer2013_label" not in source.arrays:
        raise UserError(f"{here}: {source.name} does not store FER-2013's labels beside its own; only ferplus does")
    place = np.array([source.classes.index(name) if name in source.classes else -1 for name in emotions(7)])
    labels = place[source.arrays["fer2013_label"]].astype(np.int32)
    if lost := int((labels < 0).sum()):
        raise UserError(f"{here}: {lost} of these labels belong to classes that config.data.drop_classes leaves out")
    return labels


def wrong_labels(kind: str, classes: Sequence[str]) -> Float[np.ndarray, "C C"]:
    """Returns the distributions of wrong labels: row y is over the classes other than y.

    Raises:
        UserError: if a class is not an emotion and the noise is not symmetric.
    """
    count = len(classes)
    if kind == "symmetric":
        return (1 - np.eye(count)) / (count - 1)
    place = emotion_indices(classes, f"config.data.label_noise='{kind}'", "symmetric")
    if kind == "pair":
        order = np.argsort(place)  # order[k] is the k-th class in the order of labels.EMOTIONS
        wrong = np.zeros((count, count))
        wrong[order, np.roll(order, -1)] = 1
        return wrong
    wrong = FERPLUS[np.ix_(place, place)] * (1 - np.eye(count))
    return wrong / wrong.sum(axis=1, keepdims=True)


def read_noise_list(
    path: pathlib.Path, dataset: str, classes: Sequence[str], split: str, names: Sequence[str]
) -> Int[np.ndarray, " N"]:
    """Reads a list of noisy labels in the format of EAC's and ReSup's authors: `train_00001.jpg 5` on each line.

    The number is a label in the data set's own codes. Names are compared without their extension and `_aligned`. Lines
    of other splits are skipped.

    Args:
        path: the list.
        dataset: whose codes it uses.
        classes: names of the classes.
        split: the training split.
        names: of the split's images in the stored order (`source.image_names`).

    Returns:
        The class index of each image.

    Raises:
        UserError: naming the file and the row of the first mistake.
    """
    lines = read_text(path, "give another config.data.label_noise_file").splitlines()
    codes = _codes(dataset, classes)
    places = {_stem(name): place for place, name in enumerate(names)}
    labels, seen = np.full(len(names), -1, np.int32), np.zeros(len(names), int)
    for row, line in enumerate(lines, start=1):
        here = f"{path}, row {row}"
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            raise UserError(f"{here}: expected a name and a label, such as '{split}_00001.jpg 5', not '{line[:80]}'")
        place = places.get(_stem(words[0]))
        if place is None and not words[0].startswith(split):
            continue
        if place is None:
            raise UserError(f"{here}: split {split} of {dataset} has no image {words[0]} among its {len(names)}")
        if seen[place]:
            raise UserError(f"{here}: {words[0]} is already in row {seen[place]}")
        if words[1] not in codes:
            raise UserError(f"{here}: '{words[1]}' is not a label of {dataset}; known: {', '.join(codes)}")
        labels[place], seen[place] = codes[words[1]], row
    if (missing := np.flatnonzero(seen == 0)).size:
        raise UserError(
            f"{path} lacks {len(missing)} of the {len(names)} images of {dataset}, split {split}, first "
            f"{names[missing[0]]}: give the complete list"
        )
    return labels


def _stem(name: str) -> str:
    return name.partition(".")[0].removesuffix("_aligned")


def _codes(dataset: str, classes: Sequence[str]) -> dict[str, int]:
    """Returns the class index of each of the data set's codes, as written in a list."""
    known = [ALIASES.get(name.lower(), name) for name in classes]
    names = {str(code): canonical(dataset, code) for code in CODES.get(dataset, ())}
    codes = {code: known.index(name) for code, name in names.items() if name in known}
    if not codes:
        raise UserError(
            f"config.data.label_noise_file: the codes of {dataset} for {', '.join(classes)} are unknown; set "
            "config.data.label_noise instead"
        )
    return codes
