"""Training in phases: parts of a run, each with an optimizer and a learning-rate schedule of its own from its step 0.

`config.train.phases` lists (share of the run, {field: value}); the fields are those of `config.optimizer` and
`config.schedule` that differ in the phase:

    config.train.phases = ((0.6, {}), (0.4, {"optimizer.name": "sgd"}))
"""

from __future__ import annotations

import dataclasses
from typing import Any

from fer_jax.errors import UserError, nearest

GROUPS = ("optimizer", "schedule")


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of the run, from step `start` of the whole run to step `end`, with the fields of `config`."""

    start: int
    end: int
    config: Any

    @property
    def steps(self) -> int:
        return self.end - self.start


def phases(config: Any, total_steps: int) -> list[Phase]:
    """Returns the phases of a run in order: a single one if `config.train.phases` is empty.

    Raises:
        UserError: if the shares do not add up to 1, for an unknown field, and for a value of another type.
    """
    given = config.train.phases
    if not given:
        return [Phase(0, total_steps, config)]
    parsed = [_parsed(number, phase, config) for number, phase in enumerate(given)]
    shares = [share for share, _ in parsed]
    if not (min(shares) > 0 and abs(sum(shares) - 1) <= 1e-6):
        raise UserError(f"config.train.phases: the shares {tuple(shares)} must be above 0 and add up to 1")
    ends = [round(sum(shares[: number + 1]) * total_steps) for number in range(len(shares))]
    starts = [0, *ends[:-1]]
    if any(start >= end for start, end in zip(starts, ends, strict=True)):
        raise UserError(f"config.train.phases: {total_steps} steps are too few for {len(shares)} phases")
    changed = (config for _, config in parsed)
    return [Phase(start, end, c) for start, end, c in zip(starts, ends, changed, strict=True)]


def _parsed(number: int, phase: Any, config: Any) -> tuple[float, Any]:
    """Returns the share of a phase, and its config."""
    field = f"config.train.phases[{number}]"
    try:
        share, changes = float(phase[0]), dict(phase[1])
        if len(phase) != 2:
            raise TypeError
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise UserError(f"{field}={phase!r}: give (0.5, {{'optimizer.name': 'sgd'}})") from error
    config = config.copy_and_resolve_references()
    for path, value in changes.items():
        group, _, name = path.partition(".")
        if group not in GROUPS or name not in config[group]:
            there = [f"{g}.{n}" for g in GROUPS for n in config[g]]
            raise UserError(f"{field}: no field '{path}'; {nearest(path, there)}")
        try:
            config[group][name] = value
        except (TypeError, ValueError) as error:
            raise UserError(f"{field}: {path}={value!r}: {' '.join(str(error).split())}") from error
    return share, config
