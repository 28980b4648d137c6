"""Wrong labels on purpose: drawn at a stated rate and seed, or read from a published list.

Kinds, all by the names of the classes:
    symmetric: any of the other classes, each as often.
    asymmetric: what FER+'s annotators vote for beside the class, as often as they do (`prior.FERPLUS`, its diagonal
        left out).
    pair: the next class in the order of `labels.EMOTIONS`, after the last one the first.

Each label is changed with the probability `rate`, independently of the others, as the script that SCN's noise files
come from does it; so the number that is changed varies, and results.json has it. What becomes of a label depends on
the seed and on the example's row in the split as stored, and on nothing else: the same examples are wrong in whatever
selection and order, and those that are wrong at one rate are wrong, in the same way, at any higher one.

Noise comes after the held-out part has left: only what trains is changed. The model is selected on true labels and the
test split keeps its own, which flatters the choice of the checkpoint a little against a validation set that is as wrong
as the training set; `selection.rule='last'` does without any choice. The true label stays in the field `clean_label`,
for what a method monitors; no loss reads it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from fer_jax.data.targets.prior import FERPLUS
from fer_jax.errors import UserError, nearest
from fer_jax.labels import ALIASES, CODES, EMOTIONS, canonical
from fer_jax.randomness import Purpose, Stream

if TYPE_CHECKING:
    from fer_jax.data.sources.source import Source

KINDS = ("symmetric", "asymmetric", "pair")
HARD_TARGETS = ("label", "majority", "argmax")  # rules that give one class: a distribution has no label to be wrong
BETTER_THAN_CHANCE = 0.05  # by so much a list must agree with the stored labels to be one of these images


def check(data: Any, *, reads_labels: bool) -> None:
    """Refuses fields of `config.data` that say too little or too much about the noise, or leave it nothing to change.

    Args:
        data: the `data` part of an experiment's config.
        reads_labels: whether the method does.
    """
    if data.label_noise not in ("", *KINDS):
        raise UserError(f"config.data.label_noise='{data.label_noise}': {nearest(data.label_noise, KINDS)}")
    if data.label_noise and data.label_noise_file:
        raise UserError("config.data.label_noise and config.data.label_noise_file: give one of them")
    if data.label_noise_rate and not data.label_noise:
        raise UserError(
            f"config.data.label_noise_rate={data.label_noise_rate} does nothing without config.data.label_noise: "
            f"give {', '.join(KINDS)}"
        )
    if data.label_noise and not data.label_noise_rate:
        raise UserError(
            f"config.data.label_noise='{data.label_noise}' does nothing without config.data.label_noise_rate: "
            "give 0.2, for example"
        )
    field = "label_noise_file" if data.label_noise_file else "label_noise"
    if data[field] and not reads_labels:
        raise UserError(f"config.data.{field}: this method reads no labels; leave it out")
    if data[field] and data.target not in HARD_TARGETS:
        raise UserError(
            f"config.data.{field}: config.data.target='{data.target}' is a distribution, which has no label to change: "
            f"give {', '.join(HARD_TARGETS)}"
        )


def with_label_noise(source: Source, data: Any, names: Sequence[str] = ()) -> tuple[Source, dict[str, Any]]:
    """Changes the labels of a training source as `config.data` says.

    Args:
        source: the training examples, without the held-out ones.
        data: the `data` part of an experiment's config, with `label_noise` or `label_noise_file` set.
        names: of the images of the split as stored; only a list needs them.

    Returns:
        The source with noisy `label` and `target` and the true ones in `clean_label`, and the record for results.json.

    Raises:
        UserError: for classes that the kind does not know, and for a list that is damaged or of other images.
    """
    clean = source.arrays["label"]
    if data.label_noise_file:
        path = pathlib.Path(os.path.expanduser(data.label_noise_file))
        listed = read_noise_list(path, source.name.partition("/")[0], source.classes, source.split, names)
        labels = listed[source.rows]
        _check_agreement(path, labels, clean, len(source.classes))
        origin = {"kind": "list", "file": path.name, "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    else:
        wrong = wrong_labels(data.label_noise, source.classes)
        labels = noisy_labels(clean, source.rows, wrong, rate=data.label_noise_rate, seed=data.label_noise_seed)
        origin = {"kind": data.label_noise, "rate": data.label_noise_rate, "seed": data.label_noise_seed}
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
    rate: float,
    seed: int,
) -> Int[np.ndarray, " N"]:
    """Returns the labels, each replaced with probability `rate` by a draw from its class's row of `wrong`.

    Args:
        labels: the true ones.
        rows: place of each example in its split as stored; with the seed it decides what is drawn.
        wrong: a distribution over the other classes for each class, zero on the diagonal (see `wrong_labels`).
        rate: in [0, 1].
        seed: of the noise, apart from the seed of training.
    """
    stream = Stream(seed, Purpose.LABEL_NOISE, rows, capacity=2)
    change, which = stream.chance(rate), stream.uniform()
    edges = np.cumsum(wrong, axis=1)
    edges /= edges[:, -1:]  # the last edge is 1 exactly, above any draw
    # The first edge above the draw: never that of a class without probability, whose edge is the one before.
    drawn = (which[:, None] >= edges[labels]).sum(axis=1)
    return np.where(change, drawn, labels).astype(np.int32)


def wrong_labels(kind: str, classes: Sequence[str]) -> Float[np.ndarray, "C C"]:
    """Returns what a wrong label is drawn from: row y is a distribution over the classes other than y.

    Raises:
        UserError: for classes that are no emotions, unless the noise is symmetric.
    """
    count = len(classes)
    if kind == "symmetric":
        return (1 - np.eye(count)) / (count - 1)
    names = [ALIASES.get(name.lower()) for name in classes]
    for written, name in zip(classes, names, strict=True):
        if name is None:
            raise UserError(
                f"config.data.label_noise='{kind}' knows {', '.join(EMOTIONS)}, not '{written}': give 'symmetric'"
            )
    place = [EMOTIONS.index(name) for name in names if name is not None]
    if kind == "pair":
        order = np.argsort(place)  # order[k] is the k-th class as labels.EMOTIONS has them
        wrong = np.zeros((count, count))
        wrong[order, np.roll(order, -1)] = 1
        return wrong
    wrong = FERPLUS[np.ix_(place, place)] * (1 - np.eye(count))
    return wrong / wrong.sum(axis=1, keepdims=True)


def read_noise_list(
    path: pathlib.Path, dataset: str, classes: Sequence[str], split: str, names: Sequence[str]
) -> Int[np.ndarray, " N"]:
    """Reads a list of noisy labels as EAC's authors publish it for RAF-DB: `train_00001.jpg 5` on each line.

    The number is a label in the data set's own codes. A name counts without its ending and `_aligned`. Lines of other
    splits, as the list of true labels has them, are passed over.

    Args:
        path: the list.
        dataset: whose codes it uses.
        classes: names of the classes.
        split: that is trained on.
        names: of the split's images in the order in which they are stored (`source.image_names`).

    Returns:
        The index of the class of each image.

    Raises:
        UserError: naming the file, and the row if it is in one, for whatever is not as it should be.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"config.data.label_noise_file: {path} cannot be read: {reason}") from error
    codes = _codes(dataset, classes)
    places = {_stem(name): place for place, name in enumerate(names)}
    labels, seen = np.full(len(names), -1, np.int32), np.zeros(len(names), int)
    for row, line in enumerate(lines, start=1):
        here = f"{path}, row {row}"
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            raise UserError(f"{here}: '{line.strip()[:80]}' is no name and label, such as '{split}_00001.jpg 5'")
        place = places.get(_stem(words[0]))
        if place is None and not words[0].startswith(split):
            continue
        if place is None:
            raise UserError(f"{here}: {dataset} has no image {words[0]} among the {len(names)} of split {split}")
        if seen[place]:
            raise UserError(f"{here}: {words[0]} stands in row {seen[place]} already")
        if words[1] not in codes:
            raise UserError(f"{here}: '{words[1]}' is no label of {dataset}: its classes are {', '.join(codes)}")
        labels[place], seen[place] = codes[words[1]], row
    if (missing := np.flatnonzero(seen == 0)).size:
        raise UserError(
            f"{path} lacks {len(missing)} of the {len(names)} images of {dataset}, split {split}, the first of them "
            f"{names[missing[0]]}: give the whole list"
        )
    return labels


def _stem(name: str) -> str:
    return name.partition(".")[0].removesuffix("_aligned")


def _codes(dataset: str, classes: Sequence[str]) -> dict[str, int]:
    """The index of the class of each of the data set's codes, as a list has them written."""
    known = [ALIASES.get(name.lower(), name) for name in classes]
    names = {str(code): canonical(dataset, code) for code in CODES.get(dataset, ())}
    codes = {code: known.index(name) for code, name in names.items() if name in known}
    if not codes:
        raise UserError(
            f"config.data.label_noise_file: no codes of {dataset} are known for {', '.join(classes)}; "
            "give config.data.label_noise instead"
        )
    return codes


def _check_agreement(path: pathlib.Path, labels: np.ndarray, clean: np.ndarray, classes: int) -> None:
    """Refuses a list that has no more to do with these images than any other list of as many labels."""
    shares = [np.bincount(values, minlength=classes) / len(values) for values in (labels, clean)]
    agree, chance = float((labels == clean).mean()), float(shares[0] @ shares[1])
    if agree <= chance + BETTER_THAN_CHANCE:
        raise UserError(
            f"{path} gives {100 * agree:.0f} % of the training images their label, and chance {100 * chance:.0f} %: "
            "it is a list of other images, or in another order"
        )
