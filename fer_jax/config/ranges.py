"""What the numbers of a config may be."""

from __future__ import annotations

import math
from typing import Any

from fer_jax.errors import UserError

LAST_SEED = 2**31 - 1
LAST_STEP = 1 << 30  # steps are counted in int32

RANGES = {
    "data.holdout_fraction": (0.0, 0.9),
    "data.label_noise_rate": (0.0, 1.0),
    "data.label_noise_seed": (0, 2**31 - 1),
    "data.label_smoothing": (0.0, 1.0),
    "data.image_size": (8, 2048),
    "data.points_cheek": (0.0, 64.0),
    "data.class_weight_power": (0.0, 4.0),
    "data.clip_frames": (1, 1024),
    "data.last_frames": (0, 1024),
    "data.neutral_frames": (0, 1024),
    "train.batch_size": (1, 1 << 20),
    "train.accumulate": (1, 1024),
    "train.ema_decay": (0.0, 0.999999),
    "train.log_every_steps": (1, 1 << 30),
    "train.keep_checkpoints": (1, 1000),
    "train.max_steps": (0, LAST_STEP),
    "train.devices": (0, 1 << 20),
    "train.steps_per_dispatch": (0, 10_000),
    "optimizer.b1": (0.0, 0.999999),
    "optimizer.b2": (0.0, 0.999999),
    "optimizer.momentum": (0.0, 0.999999),
    "schedule.peak_fraction": (0.0, 1.0),
    "schedule.final_fraction": (0.0, 1.0),
    "evaluation.batch_size": (1, 1 << 20),
    "evaluation.bootstrap": (0, 1_000_000),
    "seed": (0, LAST_SEED),
    "seeds": (1, 1000),
}
NOT_NEGATIVE = (
    "optimizer.learning_rate",
    "optimizer.eps",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "optimizer.adam_share",
    "schedule.warmup_epochs",
    "schedule.factor",
)
POSITIVE = ("train.epochs", "train.eval_every_epochs", "schedule.div_factor", "schedule.final_div_factor")


def check_numbers(config: Any) -> None:
    """Refuses a number that is out of its range, or none."""
    for path, (low, high) in RANGES.items():
        value = _lookup(config, path)
        if not low <= value <= high:
            raise UserError(f"config.{path}={value} is out of range: give {low:g} to {high:g}")
    for path in NOT_NEGATIVE + POSITIVE:
        value = _lookup(config, path)
        if not (math.isfinite(value) and (value > 0 or (value == 0 and path in NOT_NEGATIVE))):
            number = "a number" if math.isfinite(value) else "a finite number"
            raise UserError(f"config.{path}={value}: give {number} {'above' if path in POSITIVE else 'of at least'} 0")


def check_finite(config: Any, group: str) -> None:
    """Refuses infinity, and what is no number, in a group of fields whose ranges its method knows."""
    for name, value in _lookup(config, group).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config.{group}.{name}={value}: give a finite number")


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
            f"{train.batch_size}, more than a run can count: give {LAST_STEP / steps_per_epoch:.0f} at most, or end it "
            "with config.train.max_steps"
        )
    total = max(1, round(steps))
    return total, max(1, round(min(train.eval_every_epochs * steps_per_epoch, total)))


def _lookup(config: Any, path: str) -> Any:
    for part in path.split("."):
        config = config[part]
    return config
