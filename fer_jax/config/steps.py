"""The number of steps of a run, and its division into phases (each with its own optimizer) and stages (image sizes).

    config.train.phases = ((0.6, {}), (0.4, {"optimizer.name": "sgd"}))   # each phase has a new optimizer and schedule
    config.data.resolutions = ((0.5, 32),)   # half of the run at 32 pixels, the rest at data.image_size

Smaller images first is the idea of the fastest recipes on ImageNet (Howard, DAWNBench 2018; Tan and Le, arXiv
2104.00298).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

from fer_jax.config.fields import Config, assign, nearest_field
from fer_jax.config.table import FIELDS, LAST_STEP
from fer_jax.errors import UserError

SMALLEST = 8  # pixels


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of the run, from step `start` to step `end` of the whole run, trained with `config`."""

    start: int
    end: int
    config: Config


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of the run that ends with step `end` of the whole run and trains on images of `size` pixels."""

    end: int
    size: int


def count_steps(config: Config, steps_per_epoch: float) -> tuple[int, int]:
    """Returns the number of steps of a run, and the number between its evaluations.

    Raises:
        UserError: for more steps than a run can count.
    """
    train = config.train
    steps = min(train.epochs * steps_per_epoch, train.max_steps or math.inf)
    if steps > LAST_STEP:
        raise UserError(
            f"config.train.epochs={train.epochs:g} gives {steps:.3g} steps at config.train.batch_size="
            f"{train.batch_size}, more than a run can count: give {LAST_STEP / steps_per_epoch:.0f} at most, or set "
            "config.train.max_steps"
        )
    total = max(1, round(steps))
    return total, max(1, round(min(train.eval_every_epochs * steps_per_epoch, total)))


def phases(config: Config, total_steps: int) -> list[Phase]:
    """Returns the phases of a run in order: a single one if `config.train.phases` is empty.

    Raises:
        UserError: if the shares do not add up to 1, and for an unknown field or an invalid value.
    """
    given = config.train.phases or ((1.0, {}),)
    mistake = UserError(
        f"config.train.phases={given!r}: give ((0.5, {{}}), (0.5, {{'optimizer.name': 'sgd'}})), shares above 0 that "
        "add up to 1"
    )
    try:
        parts = [(float(share), dict(changes)) for share, changes in given]
    except (TypeError, ValueError) as error:
        raise mistake from error
    shares = [share for share, _ in parts]
    if not (min(shares) > 0 and abs(sum(shares) - 1) <= 1e-6):
        raise mistake
    ends = _ends(shares, total_steps, "config.train.phases")
    changed = [_changed(config, changes) for _, changes in parts]
    return [Phase(start, end, c) for start, end, c in zip([0, *ends], ends, changed, strict=False)]


def _changed(config: Config, changes: dict[str, Any]) -> Config:
    known = [path for path in FIELDS if path.startswith(("optimizer.", "schedule."))]
    config = config.copy_and_resolve_references()
    for path, value in changes.items():
        if path not in known:
            raise UserError(f"config.train.phases: a phase has no field '{path}'; {nearest_field(path, known)}")
        FIELDS[path].check(path, value)
        assign(config, path, value)
    return config


def stages(config: Config, total_steps: int) -> tuple[Stage, ...]:
    """Returns the stages of a run in order; the last one has the size at which the model is evaluated.

    Raises:
        UserError: if the shares add up to 1 or more, and for invalid sizes and too few steps.
    """
    given, full = config.data.resolutions, config.data.image_size
    mistake = UserError(
        f"config.data.resolutions={given!r}: give ((share of the run, pixels), ...), shares above 0 that add up to "
        f"less than 1, and whole numbers of pixels, {SMALLEST} to config.data.image_size={full}"
    )
    try:
        shares, sizes = [float(share) for share, _ in given], [int(size) for _, size in given]
    except (OverflowError, TypeError, ValueError) as error:
        raise mistake from error
    whole = all(size == asked and SMALLEST <= size <= full for size, (_, asked) in zip(sizes, given, strict=True))
    if not (whole and all(share > 0 for share in shares) and sum(shares) < 1):
        raise mistake
    ends = _ends([*shares, 1 - sum(shares)], total_steps, "config.data.resolutions")
    return tuple(Stage(end, size) for end, size in zip(ends, [*sizes, full], strict=True))


def size_at(of_run: Sequence[Stage], step: int) -> int:
    """Returns the image size of the step that follows `step` finished steps."""
    return next((stage.size for stage in of_run if step < stage.end), of_run[-1].size)


def _ends(shares: Sequence[float], total_steps: int, field: str) -> list[int]:
    """Returns the last step of each part of the run."""
    ends = [round(share * total_steps) for share in itertools.accumulate(shares)]
    if any(start >= end for start, end in itertools.pairwise([0, *ends])):
        raise UserError(f"{field}: {total_steps} steps are too few for {len(shares)} parts")
    return ends
