"""Contestants take turns (A B C A B C ...), so that other load on the machine affects all of them alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

Run = Callable[[], Any]  # one turn, whose result is waited for; a float (a loss) must be finite


def take_turns(contestants: Mapping[str, Run], repeats: int, few: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Times one call of each contestant per round, after a warm-up round.

    Args:
        contestants: by name.
        repeats: number of rounds.
        few: smaller numbers of rounds, for contestants that take seconds.

    Returns:
        The seconds of each call, by contestant.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, run in contestants.items():
            if turn > (few or {}).get(name, repeats):
                continue
            began = time.perf_counter()
            result = jax.block_until_ready(run())
            if turn:
                seconds[name].append(time.perf_counter() - began)
            if isinstance(result, float) and not math.isfinite(result):
                raise FloatingPointError(f"{name}: the loss is not finite at turn {turn}")
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Returns the median seconds of each contestant."""
    return {name: statistics.median(times) for name, times in seconds.items()}


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
