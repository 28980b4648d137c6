"""The number of steps of a run."""

from __future__ import annotations

import math
from typing import Any

from fer_jax.config.table import LAST_STEP
from fer_jax.errors import UserError


def count_steps(config: Any, steps_per_epoch: float) -> tuple[int, int]:
    """Returns how many steps a run has, and how many lie between its evaluations.

    Raises:
        UserError: for more steps than a run can count.
    """
    train = config.train
    steps = min(train.epochs * steps_per_epoch, train.max_steps or math.inf)
    if steps > LAST_STEP:
        raise UserError(
            f"config.train.epochs={train.epochs:g} are {steps:.3g} steps of config.train.batch_size="
            f"{train.batch_size}, more than a run can count: give {LAST_STEP / steps_per_epoch:.0f} at most, or limit "
            "it with config.train.max_steps"
        )
    total = max(1, round(steps))
    return total, max(1, round(min(train.eval_every_epochs * steps_per_epoch, total)))
