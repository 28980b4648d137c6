"""Checks a prepared data set: numbers, every picture, equal pictures, people in several splits."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tqdm import tqdm

from fer_jax.data.sources.decoding import decoded
from tfds_builders.listing import unusual_counts
from tfds_builders.look_alikes import equal_groups, near_pairs, perceptual_hash, pixel_hash
from tfds_builders.prepared import require_prepared

CHUNK = 256  # pictures decoded at a time
NAMED = 5  # examples that a line names


@dataclasses.dataclass
class Findings:
    """The result of a check.

    Attributes:
        wrong: lines on errors: other numbers than published, people in two splits.
        notes: lines on what a user should know.
        numbers: all counts, JSON types.
    """

    wrong: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _Split:
    """The hashes of the pictures of a split, or of the middle frames of its clips, and the labels of all examples."""

    name: str
    labels: np.ndarray
    row: np.ndarray  # of the example of each picture
    exact: list[bytes]
    looks: np.ndarray
    black: np.ndarray
    subjects: np.ndarray | None


def verify(builder: Any) -> Findings:
    """Checks the prepared data set of `builder`.

    Raises:
        UserError: if it is not prepared, or a picture cannot be decoded.
    """
    require_prepared(builder)
    findings = Findings()
    splits = [_read(builder, name) for name in builder.info.splits]
    classes = builder.info.features["label"].names if "label" in builder.info.features else []
    findings.numbers["counts"] = counts = {
        split.name: {name: int((split.labels == i).sum()) for i, name in enumerate(classes)} for split in splits
    }
    stored = dict(builder.info.metadata or {})
    published = {split: numbers for split, numbers in stored.get("published", {}).items() if split in counts}
    findings.wrong += [f"not the published numbers: {line}" for line in unusual_counts(counts, published)]
    _note_black(findings, splits)
    _note_equal(findings, splits)
    _note_look_alikes(findings, splits)
    _check_people(findings, splits)
    findings.notes += [f"when it was built: {line}" for line in stored.get("warnings", [])]
    findings.notes += [f"missing, as --allow_missing allowed: {line}" for line in stored.get("missing", [])]
    return findings


def _read(builder: Any, name: str) -> _Split:
    fields = decoded(builder, name, on_disk=True)
    pictures = fields["image"] if "image" in fields else fields["frames"]
    if "image" in fields:
        row = places = np.arange(len(pictures))
    else:  # every frame is decoded; the one in the middle of a clip is compared
        starts = np.cumsum(fields["length"]) - fields["length"]
        row = np.flatnonzero(fields["length"])
        places = (starts + fields["length"] // 2)[row]
    compared = np.zeros(len(pictures), bool)
    compared[places] = True
    exact, looks, black = [], [], []
    for start in tqdm(range(0, len(pictures), CHUNK), f"decoding {name}", unit=" chunks", disable=None, leave=False):
        chunk = pictures[start : start + CHUNK]
        for image in chunk[compared[start : start + CHUNK]]:
            exact.append(pixel_hash(image))
            looks.append(perceptual_hash(image))
            black.append(not image.any())
    labels = fields.get("label", np.full(builder.info.splits[name].num_examples, -1))
    return _Split(name, labels, row, exact, np.array(looks, np.uint64), np.array(black), fields.get("subject"))


def _note_black(findings: Findings, splits: list[_Split]) -> None:
    rows = [f"{split.name} {row}" for split in splits for row in split.row[split.black]]
    findings.numbers["black"] = len(rows)
    if rows:
        findings.notes.append(f"{len(rows)} black pictures: {_some(rows)}")


def _note_equal(findings: Findings, splits: list[_Split]) -> None:
    """Equal pictures, within and between splits, and those with unequal labels."""
    hashes = [value for split in splits for value in split.exact]
    groups = equal_groups(hashes)
    labels = np.concatenate([split.labels[split.row] for split in splits])
    findings.numbers |= {
        "pictures": len(hashes),
        "distinct": len(set(hashes)),
        "equal_groups": len(groups),
        "conflicting_groups": sum(len(set(labels[group].tolist())) > 1 for group in groups),
        "equal_between_splits": {},
    }
    if groups:
        rows = sum(map(len, groups))
        unequal = findings.numbers["conflicting_groups"]
        findings.notes.append(
            f"{len(set(hashes)):,} distinct pictures of {len(hashes):,}: {len(groups):,} groups of duplicates cover "
            f"{rows:,}, {unequal:,} of these groups with different labels"
        )
    for one in splits:
        for other in splits:
            if one is other:
                continue
            inside = set(other.exact)
            number = sum(value in inside for value in one.exact)
            findings.numbers["equal_between_splits"][f"{one.name} in {other.name}"] = number
            if number:
                findings.notes.append(f"{number:,} pictures of {one.name} are also in {other.name}")


def _note_look_alikes(findings: Findings, splits: list[_Split]) -> None:
    """Pairs between splits that look alike without being equal."""
    hashes = np.concatenate([split.looks for split in splits])
    exact = [value for split in splits for value in split.exact]
    owner = np.repeat(np.arange(len(splits)), [len(split.looks) for split in splits])
    row = np.concatenate([split.row for split in splits])
    pairs = near_pairs(hashes)
    pairs = pairs[owner[pairs[:, 0]] != owner[pairs[:, 1]]]
    pairs = [(i, j) for i, j in pairs if exact[i] != exact[j]]
    findings.numbers["look_alikes_between_splits"] = len(pairs)
    if pairs:
        named = [f"{splits[owner[i]].name} {row[i]} and {splits[owner[j]].name} {row[j]}" for i, j in pairs]
        findings.notes.append(f"{len(pairs):,} pairs in two splits look alike without being equal: {_some(named)}")


def _check_people(findings: Findings, splits: list[_Split]) -> None:
    people = {split.name: set(split.subjects.tolist()) for split in splits if split.subjects is not None}
    findings.numbers["subjects"] = {name: len(some) for name, some in people.items()}
    names = list(people)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            if both := sorted(people[one] & people[other]):
                findings.wrong.append(f"{len(both)} people are in {one} and in {other}: {_some(map(str, both))}")


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
