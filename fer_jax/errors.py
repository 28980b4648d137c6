"""Mistakes that a user can mend: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. Entry points print it as one line and exit with status 2, without a stack trace."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint for a misspelt `name`: the closest of `known`, or all of them when none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known) or 'none'}"
