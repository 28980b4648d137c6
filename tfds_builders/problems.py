"""What is wrong with the user's files, collected, so that one run shows all of it and not the first mistake only."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterable
from typing import NamedTuple

from fer_jax.errors import UserError

SHOWN = 20  # lines; all of many are in a file


class BadPicture(Exception):
    """A picture or video that cannot be used; its text says what is wrong and what to do."""


class Gap(NamedTuple):
    """An example that cannot be had, or a file that belongs to none: where it is, what is wrong and what to do."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where} {self.what}"


@dataclasses.dataclass
class Problems:
    """Lines about single files.

    Attributes:
        name: of the data set and its folder, for the headline.
        mistakes: what makes the copy unusable, such as a label outside the codes.
        gaps: examples that cannot be had, such as a listed image that is not there: a copy with some may be accepted.
        unlisted: files that no list names, which may be accepted too.
    """

    name: str
    mistakes: list[str] = dataclasses.field(default_factory=list)
    gaps: list[Gap] = dataclasses.field(default_factory=list)
    unlisted: list[Gap] = dataclasses.field(default_factory=list)

    def mistake(self, where: object, what: str) -> None:
        """Notes what no flag accepts; `what` says what is wrong and what to do."""
        self.mistakes.append(f"{where} {what}")

    def gap(self, where: object, what: str) -> None:
        """Notes an example that cannot be had."""
        self.gaps.append(Gap(str(where), what))

    def extra(self, where: object, what: str) -> None:
        """Notes a file that belongs to no example."""
        self.unlisted.append(Gap(str(where), what))

    def raise_if_any(self, allow_missing: int) -> None:
        """Raises one `UserError` with all lines where there are mistakes, or more gaps than are allowed."""
        accepted = [*self.gaps, *self.unlisted]
        if not self.mistakes and len(accepted) <= allow_missing:
            return
        lines = [*self.mistakes, *map(str, accepted)]
        count = f"{len(lines)} {'problems' if len(lines) > 1 else 'problem'}"
        advice = "mend them"
        if accepted and not self.mistakes:
            allowed = f", where {allow_missing} {'are' if allow_missing > 1 else 'is'} allowed" if allow_missing else ""
            advice = f"mend them, or accept the gaps with --allow_missing={len(accepted)}{allowed}"
        raise UserError(f"{self.name}: {count}; {advice}\n{listed(lines)}{in_full(lines)}")


def listed(lines: Iterable[object]) -> str:
    """Returns the first lines, indented, and how many more there are."""
    lines = [str(line) for line in lines]
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join(f"  {line}" for line in lines[:SHOWN] + more)


def in_full(lines: Iterable[object]) -> str:
    """Writes lines that are too many to show to a file and returns the line that names it; '' for few."""
    lines = [str(line) for line in lines]
    if len(lines) <= SHOWN:
        return ""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="problems-", suffix=".txt", delete=False) as file:
            file.write("\n".join(lines) + "\n")
    except OSError:  # the first ones have been shown
        return ""
    return f"\n  all of them: {pathlib.Path(file.name)}"
