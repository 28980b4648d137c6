"""Label lists with a row for each example, and the official folds that several of them make."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fer_jax.parsing import read_text
from tfds_builders.listing import unusual_counts
from tfds_builders.problems import Problems


def read_rows(
    path: pathlib.Path, row: re.Pattern[str], example: str, problems: Problems, header: str = ""
) -> Iterator[tuple[str, re.Match[str]]]:
    """Yields where each row is, and its match; blank lines and the header are skipped.

    Args:
        path: of the list.
        row: what a whole row must match, without blanks at its ends.
        example: a row, for messages.
        problems: for rows of another form.
        header: the first row, if some copies have one.
    """
    for number, line in enumerate(map(str.strip, read_text(path, damaged="replace").splitlines()), start=1):
        if match := row.fullmatch(line):
            yield f"{path}:{number}", match
        elif line and line != header:
            problems.mistake(f"{path}:{number}", f"is '{line[:60]}' where '{example}' is expected: get the list again")


def read_labels(
    path: pathlib.Path,
    row: re.Pattern[str],
    known: Collection[Any],
    example: str,
    problems: Problems,
    header: str = "",
) -> dict[str, str]:
    """Returns name -> label of the rows of a list, in their order; the groups of `row` are these.

    Args:
        path, row, example, header: as `read_rows`.
        known: the labels.
        problems: as there, and for unknown labels and names that come twice.
    """
    words = list(map(str, known))
    rows: dict[str, str] = {}
    for where, match in read_rows(path, row, example, problems, header):
        name, label = match.groups()
        if label not in words:
            problems.mistake(where, f"has the label {label[:20]}, and labels are {', '.join(words)}: correct it")
        elif name in rows:
            problems.mistake(where, f"names {name} a second time: remove one of the rows")
        else:
            rows[name] = label
    return rows


class Labeled(NamedTuple):
    """The label of a clip, and the fold (from 0) whose test set it belongs to."""

    label: str
    fold: int


def join_folds(
    tests: Mapping[pathlib.Path, Mapping[str, str]],
    trains: Mapping[pathlib.Path, Mapping[str, str]],
    problems: Problems,
) -> dict[str, Labeled]:
    """Returns the clips of all test sets, sorted by name.

    Args:
        tests: path -> name -> label of the test set of each fold.
        trains: those of the training sets; {} if there are none.
        problems: for clips of two test sets, and training sets that are not all other test sets.
    """
    clips: dict[str, Labeled] = {}
    paths = list(tests)
    for fold, (path, rows) in enumerate(tests.items()):
        for name, label in rows.items():
            if name in clips:
                other = paths[clips[name].fold]
                problems.mistake(path, f"has the clip {name}, which {other} has too: get the lists again")
            else:
                clips[name] = Labeled(label, fold)
    for fold, (path, there) in enumerate(trains.items()):
        wanted = {name: clip.label for name, clip in clips.items() if clip.fold != fold}
        if others := sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name)):
            told = f"({len(others):,} clips differ, such as {others[0]}): get the lists again"
            problems.mistake(path, f"is not the other four test sets together {told}")
    return dict(sorted(clips.items()))


def check_fold_sizes(
    lists: pathlib.Path,
    clips: Mapping[str, Labeled],
    published: Sequence[int],
    allow: bool,
    problems: Problems,
) -> tuple[str, ...]:
    """Compares the sizes of the test sets with the published ones; returns warnings if others are allowed."""
    sizes = {f"set_{fold + 1}": sum(clip.fold == fold for clip in clips.values()) for fold in range(len(published))}
    expected = dict(zip(sizes, published, strict=True))
    lines = unusual_counts({"test sets": sizes}, {"test sets": expected})
    if allow:
        return tuple(f"not the published numbers of clips in {line}" for line in lines)
    for line in lines:
        problems.mistake(lists, f"has not the published {line}: get the lists again, or accept it by --allow_counts")
    return ()
