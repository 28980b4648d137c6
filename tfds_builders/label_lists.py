"""Label lists with a row '<name> <label>' for each example, and the official folds that several of them make."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from fer_jax.parsing import read_text
from tfds_builders.listing import unusual_counts
from tfds_builders.problems import Problems

Name = TypeVar("Name", int, str)
Label = TypeVar("Label", int, str)


def read_labels(
    path: pathlib.Path, name: re.Pattern[str], known: Collection[str], example: str, problems: Problems
) -> dict[str, str]:
    """Returns name -> label of the rows of a list without a header, in their order; blank lines are skipped.

    Args:
        path: of the list.
        name: what a whole name must match.
        known: the labels.
        example: a row, for messages.
        problems: for rows of another form, unknown labels and names that come twice.
    """
    rows: dict[str, str] = {}
    for number, line in enumerate(read_text(path, damaged="replace").splitlines(), start=1):
        where, parts = f"{path}:{number}", line.split()
        if not parts:
            continue
        if len(parts) != 2 or not name.fullmatch(parts[0]):
            problems.mistake(where, f"is '{line.strip()[:60]}' where '{example}' is expected: get the list again")
        elif parts[1] not in known:
            problems.mistake(where, f"has the label {parts[1][:20]}, and labels are {', '.join(known)}: correct it")
        elif parts[0] in rows:
            problems.mistake(where, f"names {parts[0]} a second time: remove one of the rows")
        else:
            rows[parts[0]] = parts[1]
    return rows


class Labeled(NamedTuple, Generic[Label]):
    """The label of a clip, and the fold (from 0) whose test set it belongs to."""

    label: Label
    fold: int


def join_folds(
    tests: Sequence[tuple[pathlib.Path, Mapping[Name, Label]]],
    trains: Sequence[tuple[pathlib.Path, Mapping[Name, Label]]],
    problems: Problems,
) -> dict[Name, Labeled[Label]]:
    """Returns the clips of all test sets, sorted by name.

    Args:
        tests: (path, name -> label) of the test set of each fold.
        trains: those of the training sets; () if there are none.
        problems: for clips of two test sets, and training sets that are not all other test sets.
    """
    clips: dict[Name, Labeled[Label]] = {}
    for fold, (path, rows) in enumerate(tests):
        for name, label in rows.items():
            if name in clips:
                other = tests[clips[name].fold][0]
                problems.mistake(path, f"has the clip {name}, which {other} has too: get the lists again")
            else:
                clips[name] = Labeled(label, fold)
    for fold, (path, there) in enumerate(trains):
        wanted = {name: clip.label for name, clip in clips.items() if clip.fold != fold}
        if others := sorted(set(wanted) ^ set(there)):
            told = f"({len(others):,} clips differ, such as {others[0]}): get the lists again"
            problems.mistake(path, f"is not the other four test sets together {told}")
        if relabeled := sorted(name for name in set(wanted) & set(there) if wanted[name] != there[name]):
            told = f"labels {len(relabeled):,} clips, such as {relabeled[0]}, unlike the test sets: get it again"
            problems.mistake(path, told)
    return dict(sorted(clips.items()))


def check_fold_sizes(
    lists: pathlib.Path,
    clips: Mapping[Name, Labeled[Label]],
    published: Mapping[str, int],
    allow: bool,
    problems: Problems,
) -> tuple[str, ...]:
    """Compares the sizes of the test sets with the published ones, by set; returns warnings if others are allowed."""
    sizes = [sum(clip.fold == fold for clip in clips.values()) for fold in range(len(published))]
    lines = unusual_counts({"test sets": dict(zip(published, sizes, strict=True))}, {"test sets": published})
    if allow:
        return tuple(f"not the published numbers of clips in {line}" for line in lines)
    for line in lines:
        problems.mistake(lists, f"has not the published {line}: get the lists again, or accept it by --allow_counts")
    return ()
