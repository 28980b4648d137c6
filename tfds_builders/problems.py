"""What is wrong with the user's files, collected, so that one run shows all of it and not the first mistake only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from fer_jax.errors import UserError

SHOWN = 20


class BadPicture(Exception):
    """A picture or video that cannot be used; its text says what is wrong and what to do."""


@dataclasses.dataclass
class Problems:
    """Lines about single files.

    Attributes:
        name: of the data set, for the headline.
        mistakes: what makes the copy unusable, such as a label outside the codes.
        gaps: examples that cannot be had, such as a listed image that is not there: a copy with some may be accepted.
    """

    name: str
    mistakes: list[str] = dataclasses.field(default_factory=list)
    gaps: list[str] = dataclasses.field(default_factory=list)

    def mistake(self, where: object, what: str) -> None:
        """Notes what no flag accepts; `what` says what is wrong and what to do."""
        self.mistakes.append(f"{where} {what}")

    def gap(self, where: object, what: str) -> None:
        """Notes an example that cannot be had."""
        self.gaps.append(f"{where} {what}")

    def raise_if_any(self, allow_missing: int) -> None:
        """Raises one `UserError` with all lines where there are mistakes, or more gaps than are allowed."""
        if not self.mistakes and len(self.gaps) <= allow_missing:
            return
        lines = [*self.mistakes, *self.gaps]
        count = f"{len(lines)} {'problems' if len(lines) > 1 else 'problem'}"
        advice = "mend them"
        if self.gaps and not self.mistakes:
            allowed = f", where {allow_missing} {'are' if allow_missing > 1 else 'is'} allowed" if allow_missing else ""
            advice = f"mend them, or accept the gaps with --allow_missing={len(self.gaps)}{allowed}"
        raise UserError(f"{self.name}: {count}; {advice}\n{listed(lines)}")


def listed(lines: Iterable[str]) -> str:
    """Returns the first lines, indented, and how many more there are."""
    lines = list(lines)
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join(f"  {line}" for line in lines[:SHOWN] + more)
