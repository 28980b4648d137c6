"""Problems with the user's files, collected so that one run reports all of them."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterable
from typing import NamedTuple

from fer_jax.errors import UserError

SHOWN = 20  # lines; further ones are in a file


class Gap(NamedTuple):
    """An example that cannot be read, or a file that belongs to none: where it is, what is wrong and what to do."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where} {self.what}"


@dataclasses.dataclass
class Problems:
    """Lines about single files.

    Attributes:
        name, folder: the data set and where its files are, for the headline.
        mistakes: what makes the copy unusable, such as a label outside the codes.
        gaps: examples that cannot be read, such as a listed image that does not exist; the user may accept some.
        unlisted: files that no list names; the user may accept some.
    """

    name: str
    folder: str
    mistakes: list[str] = dataclasses.field(default_factory=list)
    gaps: list[Gap] = dataclasses.field(default_factory=list)
    unlisted: list[Gap] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name} in {self.folder}"

    def place(self, gap: Gap) -> str:
        """Returns where a gap is within the folder."""
        return gap.where.removeprefix(f"{self.folder}/")

    def mistake(self, where: object, what: str) -> None:
        """Adds a mistake, which no flag accepts; `what` says what is wrong and what to do."""
        self.mistakes.append(f"{where} {what}")

    def gap(self, where: object, what: str) -> None:
        """Adds an example that cannot be read."""
        self.gaps.append(Gap(str(where), what))

    def extra(self, where: object, what: str) -> None:
        """Adds a file that belongs to no example."""
        self.unlisted.append(Gap(str(where), what))

    def raise_if_any(self, allow_missing: int) -> None:
        """Raises one `UserError` with all lines if there are mistakes, or more gaps than allowed."""
        accepted = [*self.gaps, *self.unlisted]
        if not self.mistakes and len(accepted) <= allow_missing:
            return
        lines = [*self.mistakes, *map(str, accepted)]
        count = f"{len(lines)} {'problems' if len(lines) > 1 else 'problem'}"
        advice = "fix them"
        if accepted and not self.mistakes:
            allowed = f", where {allow_missing} {'are' if allow_missing > 1 else 'is'} allowed" if allow_missing else ""
            advice = f"fix them, or accept the gaps with --allow_missing={len(accepted)}{allowed}"
        raise UserError(f"{self}: {count}; {advice}\n{listed(lines)}{in_full(lines)}")


def listed(lines: Iterable[object]) -> str:
    """Returns the first lines, indented, and the number of further ones."""
    lines = [str(line) for line in lines]
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join(f"  {line}" for line in lines[:SHOWN] + more)


def in_full(lines: Iterable[object]) -> str:
    """Writes all lines to a file if they are too many to show; returns a line that names it, else ''."""
    lines = [str(line) for line in lines]
    if len(lines) <= SHOWN:
        return ""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="problems-", suffix=".txt", delete=False) as file:
            file.write("\n".join(lines) + "\n")
    except OSError:  # the first ones have been shown
        return ""
    return f"\n  all of them: {pathlib.Path(file.name)}"
