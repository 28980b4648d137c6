"""Training in phases: stretches of a run, each with an optimiser and a learning-rate schedule that start anew.

`config.train.phases` lists (share of the run, {field: value}); the fields are those of `config.optimizer` and
`config.schedule` that differ in the phase:

    config.train.phases = ((0.6, {}), (0.4, {"optimizer.name": "sgd"}))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fer_jax.errors import UserError, nearest

GROUPS = ("optimizer", "schedule")


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of the run: it ends after step `end` of the whole, and reads `config`."""

    start: int
    end: int
    config: Any

    @property
    def steps(self) -> int:
        return self.end - self.start


def phases(config: Any, total_steps: int) -> list[Phase]:
    """Returns the phases of a run in order: one where `config.train.phases` is empty.

    Raises:
        UserError: for shares that do not make up the run, a field that there is not, and a value of another type.
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
    """The share of a phase, and its config."""
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


class PhasesState(NamedTuple):
    """How many steps were made, and the state of every phase's optimiser: that of a later phase is untouched."""

    count: jax.Array
    inner: tuple[Any, ...]


def in_phases(transformations: Sequence[Any], ends: Sequence[int]) -> optax.GradientTransformation:
    """Applies each transformation up to its end; the next one starts with the state of its own step 0."""

    def init(params: Any) -> PhasesState:
        return PhasesState(jnp.zeros((), jnp.int32), tuple(t.init(params) for t in transformations))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def in_phase(number: int, inner: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
            mine, new = transformations[number].update(updates, inner[number], params)
            return mine, (*inner[:number], new, *inner[number + 1 :])

        branches = [lambda inner, n=n: in_phase(n, inner) for n in range(len(transformations))]
        mine, inner = jax.lax.switch(_phase(state.count, ends), branches, state.inner)
        return mine, PhasesState(state.count + 1, inner)

    return optax.GradientTransformation(init, update)


def schedule_in_phases(
    schedules: Sequence[Callable[[Any], Any]], starts: Sequence[int], ends: Sequence[int]
) -> Callable[[Any], jax.Array]:
    """The learning rate by step of the whole run."""

    def schedule(step: Any) -> jax.Array:
        values = [s(step - start) for s, start in zip(schedules, starts, strict=True)]
        return jnp.stack(values)[_phase(jnp.asarray(step), ends)]

    return schedule


def _phase(step: jax.Array, ends: Sequence[int]) -> jax.Array:
    return jnp.sum(step >= jnp.asarray(ends[:-1]), dtype=jnp.int32)
